"""Sites: the places in an image tower where a part can act.

A site is a position or the output of a named layer. Positions are 0..L-1 (the input of a block), L
(the feature vector before the head) and "pixels" (the normalised image). Layers have names such as
"resblocks_3/ln_1", "layer1_0/bn2" and "resblocks_0/attn/in_proj".
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.module import InterceptorContext

from vprompt_jax.clip.layers import Attention, ResidualAttentionBlock
from vprompt_jax.clip.model import CLIP

PIXELS = "pixels"
MLP_BRANCH = ResidualAttentionBlock.mlp_branch.__name__
KEYS_AND_VALUES = Attention.keys_and_values.__name__
NORMALISATIONS = (nn.LayerNorm.__name__, nn.BatchNorm.__name__)
Where = int | str


@dataclasses.dataclass(frozen=True)
class Site:
    """A place in a tower.

    Attributes:
      where: position or layer name.
      inputs: shape of the layer's input without the batch axis; at a position, the activation's.
      outputs: shape of the layer's output, likewise.
      entry: the highest position (0..L, or "pixels") at which one can enter the tower and still
        pass the site.
      kind: class name of the layer, such as "LayerNorm" or "Dense"; "" at a position.
    """

    where: Where
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    entry: Where
    kind: str = ""

    @property
    def is_norm(self) -> bool:
        """Whether the site is the output of a normalisation layer."""
        return self.kind in NORMALISATIONS

    @property
    def name(self) -> str:
        """`where` in the form that names of parameters contain."""
        return str(self.where).replace("/", "_")


def layer_name(context: InterceptorContext, tower: str = "visual") -> str | None:
    """Name of the tower's layer that is called ("resblocks_3/ln_1"), None for other calls.

    Two methods count as layers: a block's branch around its MLP, "resblocks_3/mlp_branch", and what
    its attention makes of keys and values, "resblocks_3/attn/keys_and_values".
    """
    path = list(context.module.path)
    if tower not in path[:-1]:
        return None
    if context.method_name in (MLP_BRANCH, KEYS_AND_VALUES):
        path.append(context.method_name)
    elif context.method_name != "__call__":
        return None
    return "/".join(path[path.index(tower) + 1 :])


def sites_of(clip: CLIP, variables: Mapping[str, Any]) -> dict[Where, Site]:
    """Every site of an image tower, in the order in which the tower passes them.

    The tower is evaluated on shapes alone, so nothing is computed.

    Args:
      clip: the CLIP.
      variables: its variables; only their shapes matter.
    """
    shapes: dict[Where, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    kinds: dict[Where, str] = {}

    def tap(position: Where, x: jax.Array) -> jax.Array:
        shapes[position] = (x.shape[1:], x.shape[1:])
        return x

    def interceptor(
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: InterceptorContext,
    ) -> Any:
        y = call(*args, **kwargs)
        if (name := layer_name(context)) is not None:
            shapes[name] = (args[0].shape[1:], y.shape[1:])
            kinds[name] = type(context.module).__name__
        return y

    side = clip.config.image_resolution
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    shapes[PIXELS] = (images.shape[1:], images.shape[1:])
    with nn.intercept_methods(interceptor):
        jax.eval_shape(
            lambda v, x: clip.apply(v, x, tap=tap, method="encode_image"), variables, images
        )
    entries = _entries(shapes)
    return {w: Site(w, *shape, entries[w], kinds.get(w, "")) for w, shape in shapes.items()}


def normalisations(sites: Mapping[Where, Site]) -> frozenset[tuple[str, ...]]:
    """Paths of a tower's normalisation layers, such as ("resblocks_0", "ln_1")."""
    return frozenset(tuple(str(where).split("/")) for where, site in sites.items() if site.is_norm)


def _entries(wheres: Iterable[Where]) -> dict[Where, Where]:
    """Where to enter the tower to pass each site: at the last position before it."""
    entries: dict[Where, Where] = {}
    below: Where = PIXELS
    for where in wheres:
        if isinstance(where, int):
            below = where
        # A layer of the stem is entered at the pixels. There is no position between the last block
        # and the features, so a layer of the pooling is entered at the last block's input.
        entries[where] = below
    return entries


def entry_of_weight(path: Sequence[str], sites: dict[Where, Site]) -> Where:
    """The highest entry at which a weight of the tower, given by its path, still has an effect."""
    for end in range(len(path), 0, -1):
        if (name := "/".join(path[:end])) in sites:
            return sites[name].entry
    last = [site.entry for site in sites.values()][-2]
    return last if path[0] in ("proj", "proj_bias") else PIXELS


def lowest(entries: Iterable[Where]) -> Where | None:
    """The lowest of several entries; None if there are none."""
    entries = list(entries)
    if PIXELS in entries:
        return PIXELS
    return min(entries, default=None)


def matching(sites: dict[Where, Site], pattern: str) -> tuple[Site, ...]:
    """The layers whose whole name matches a regular expression, in the tower's order."""
    return tuple(
        site
        for where, site in sites.items()
        if isinstance(where, str) and where != PIXELS and re.fullmatch(pattern, where)
    )
