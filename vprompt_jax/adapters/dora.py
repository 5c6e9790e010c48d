"""DoRA (Liu et al., arXiv 2402.09353): low-rank additions to a kernel's direction, and its length.

The formula is that of the authors' code (NVlabs/DoRA).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vprompt_jax.adapters.lora import chosen_layers, columns_of, targets_at
from vprompt_jax.clip.sites import Site
from vprompt_jax.parts import Part, Surroundings
from vprompt_jax.parts.initializers import uniform_within
from vprompt_jax.parts.weights import SelectedWeights, Tree
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DecomposedKernels(SelectedWeights):
    """Replaces a kernel W [in, out] by m V / |V| with V = W + (alpha / rank) A B.

    |V| holds the lengths of V's columns, one per output. At the start B is zero and m is |W|, so
    that the kernel is W. No gradient flows through |V|, which the authors take for a constant.

    Attributes:
      sites: the dense layers.
      rank: number of columns of A and of rows of B.
      alpha: scale.
      targets: names in `lora.TARGETS`.
    """

    sites: tuple[Site, ...]
    rank: int
    alpha: float
    targets: tuple[str, ...]

    def _columns(self, tower: Tree) -> dict[str, tuple[Path, slice]]:
        """The kernel of each target, and which columns of it, by the name of the parameters."""
        flat = traverse_util.flatten_dict(tower)
        found = {}
        for site in self.sites:
            path = (*str(site.where).split("/"), "kernel")
            for target in targets_at(site, self.targets):
                name = f"{path[0]}_{target}"
                found[name] = (path, columns_of(target, flat[path].shape[-1]))
        return found

    def initial(self, tower: Tree, key: jax.Array) -> dict[str, Any]:
        """Per target A [in, rank], B [rank, out] and m [out], float32."""
        flat = traverse_util.flatten_dict(tower)
        params = {}
        for i, (name, (path, columns)) in enumerate(self._columns(tower).items()):
            kernel = np.asarray(flat[path], np.float32)[:, columns]
            inputs, outputs = kernel.shape
            uniform = uniform_within(inputs**-0.5)
            params[name] = {
                "a": uniform(jax.random.fold_in(key, i), (inputs, self.rank)),
                "b": np.zeros((self.rank, outputs), np.float32),
                "m": np.linalg.norm(kernel, axis=0),
            }
        return params

    def paths(self, tower: Tree) -> list[Path]:
        """The paths of the kernels that change."""
        return sorted({path for path, _ in self._columns(tower).values()})

    def replaced(self, tower: Tree, params: Tree) -> dict[str, Any]:
        """The tower's parameters, with the changed kernels in place of the frozen ones."""
        flat = dict(traverse_util.flatten_dict(tower))
        for name, (path, columns) in self._columns(tower).items():
            p, kernel = params[name], jnp.asarray(flat[path])
            frozen = kernel[:, columns].astype(jnp.float32)
            direction = frozen + p["a"] @ p["b"] * (self.alpha / self.rank)
            length = jax.lax.stop_gradient(jnp.linalg.norm(direction, axis=0))
            length = jnp.maximum(length, np.finfo(np.float32).tiny)  # a column of zeros stays
            changed = direction * (p["m"] / length)[None]
            flat[path] = kernel.at[:, columns].set(changed.astype(kernel.dtype))
        return traverse_util.unflatten_dict(flat)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoRASection(TrainedSection):
    """Low-rank additions to the direction of kernels, and their length."""

    rank: int = key(0, "columns of the first factor; 0: none", low=0, high=2**16)
    alpha: float = key(
        4.0, "the addition is scaled by alpha / rank", low=1e-6, high=1e30, source="as LoRA's"
    )
    targets: tuple[str, ...] = key(
        ("q", "v"), "of q, k, v, out, fc, proj", source="as LoRA's, to compare the two"
    )
    learning_rate: float = learning_rate(1e-2, "ours, chosen on val: docs/methods.md")
    optimizer: Optimizer = optimizer("adamw", "ours")


class DoRAPart(Part[DoRASection]):
    """Low-rank additions to the direction of a ViT's kernels, with a length that trains."""

    name = "dora"
    section = DoRASection
    switch = "rank"
    side = "weights"
    order = 10

    def build(self, section: DoRASection, around: Surroundings) -> DecomposedKernels:
        sites = chosen_layers("dora", section.rank, section.targets, around)
        return DecomposedKernels(sites, section.rank, section.alpha, section.targets)


PART = DoRAPart()
