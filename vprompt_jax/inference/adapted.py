"""`fit` and `load` give an `Adapted`: a CLIP with its trained adaptation, ready for new images."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.adaptation.model import variables_of
from vprompt_jax.clip.preprocess import on_screen
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.prompts.edges import EDGES
from vprompt_jax.train import keys
from vprompt_jax.train import run as run_lib
from vprompt_jax.train.assemble import Run
from vprompt_jax.train.step import evaluation_places


class Adapted:
    """A finished run's model, as inference applies it (marks by argmax, no noise).

    Every image is treated alike, whatever else is in its batch: a random patch sits where
    evaluation puts the first example's.

    Attributes:
      run: its parts; `run.config` is the resolved config. Its dataset may be None.
      params: trained parameters, by part.
      result: the contents of `result.json`.
      best: whether the parameters are those best on val, not the last step's.
    """

    def __init__(self, run: Run, params: Any, result: dict[str, Any], best: bool = False):
        self.run, self.params, self.result, self.best = run, params, result, best
        # One device is enough here, and leaves the others' memory alone.
        host = jax.device_get(variables_of(params, run.frozen))
        self.variables = jax.device_put(host, jax.devices()[0])
        self._jitted = jax.jit(self.apply)
        self._jitted_prompted = jax.jit(self._prompted)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.result["class_names"])

    @property
    def resolution(self) -> int:
        """Side R of the tower's input, in pixels."""
        return self.run.model.resolution

    @functools.cached_property
    def prompt(self) -> np.ndarray | None:
        """What is added to a normalised image, float32 [R, R, 3]; None without a pixel prompt."""
        prompt = self.run.model.prompt
        if prompt is None:
            return None
        pixels, _ = prompt.apply({"params": self.params["prompt"]}, self._place_keys())
        return np.asarray(pixels[0])

    def _place_keys(self) -> jax.Array:
        return evaluation_places(keys.root(self.run.config.seed), jnp.zeros(1, jnp.int32))

    def apply(self, variables, images) -> jax.Array:
        """Traceable: variables and uint8 [B, h, w, 3] -> float32 logits [B, C]."""
        with jax.default_matmul_precision(self.run.config.model.matmul_precision):
            return self.run.model.apply(variables, images, place_keys=self._place_keys())[0]

    def _prompted(self, variables, images):
        x = self.run.model.apply(variables, images, method="pixels")
        with jax.default_matmul_precision(self.run.config.model.matmul_precision):
            return x, *self.run.model.apply(variables, x, self._place_keys(), method="prompted")

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits float32 [B, C] of images uint8 [B, h, w, 3] of any one size."""
        return np.asarray(self._jitted(self.variables, np.asarray(images, np.uint8)))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Softmax of `logits`: float32 [B, C], in the order of `class_names`."""
        return softmax(self.logits(images))

    def predict(self, images: np.ndarray) -> list[str]:
        """The most likely class of each image of uint8 [B, h, w, 3]."""
        return [self.class_names[i] for i in self.logits(images).argmax(-1)]

    def on_screen(self, x: np.ndarray) -> np.ndarray:
        """Normalised pixels as a screen shows them; a prompt's values are clipped to 0..1."""
        c = self.run.model.clip.config
        return on_screen(x, c.mean, c.std)

    def inspect(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """What the prompt does to images uint8 [B, h, w, 3].

        Returns:
          "image" and "prompted" [B, R, R, 3] as a screen shows them (0..1, clipped), and for a
          run with a mask "edges" [B, R, R] in 0..1 and "marks" [B, g, g], with NaN where the
          template has no parameters.
        """
        x, after, out = self._jitted_prompted(self.variables, np.asarray(images, np.uint8))
        shown = {"image": self.on_screen(x), "prompted": self.on_screen(after)}
        if self.run.model.mask is not None:
            edges = np.abs(np.asarray(EDGES[self.run.model.mask.edge](x))).mean(-1)
            shown["edges"] = edges / np.maximum(edges.max((1, 2), keepdims=True), 1e-12)
            marks = np.asarray(out["marks"])
            active = np.broadcast_to(out["active"], marks.shape)
            shown["marks"] = np.where(active, marks, np.nan)
        return shown


def softmax(logits: np.ndarray) -> np.ndarray:
    """float32 [B, C] -> probabilities [B, C]."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def load(workdir: Path | str, *, best: bool = False) -> Adapted:
    """A finished run, without its dataset.

    Args:
      workdir: of the run.
      best: the parameters best on val, in place of the last step's.

    Raises:
      UserError: if the run has not finished, its weights are gone, or it has nothing best on val.
    """
    run, params = run_lib.load_run(Path(workdir), with_data=False, best=best)
    return Adapted(run, params, run_lib.read_result(Path(workdir)), best)


def fit(config, dataset: Dataset, workdir: Path | str) -> Adapted:
    """Trains what a config describes on images that are already there.

    Args:
      config: a `ConfigDict` made from `config.default_config`; its `data` section says only how
        texts are made and val is cut.
      dataset: splits of uint8 images; `val` is cut from train if there is none.
      workdir: as of `train.fit`: a finished run on the same config and images is not run again.

    Raises:
      UserError: as `train.fit`.
    """
    config = config.copy_and_resolve_references()
    config.data.source = "given"
    config.data.name = f"{dataset.name}-{_fingerprint(dataset)}"
    run_lib.fit(config, workdir, dataset)
    return load(workdir)


def _fingerprint(dataset: Dataset) -> str:
    """Eight hex digits that change with class names, labels, and (a sample of) the images."""
    digest = hashlib.sha256("\0".join(dataset.class_names).encode())
    for split in (dataset.train, dataset.val, dataset.test):
        if split is not None and len(split):
            digest.update(np.asarray(split.labels, np.int32).tobytes())
            sample: Sequence[int] = np.unique(np.linspace(0, len(split) - 1, 256).astype(np.int32))
            digest.update(np.ascontiguousarray(split.fetch(np.asarray(sample))).tobytes())
    return digest.hexdigest()[:8]
