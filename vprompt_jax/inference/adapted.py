"""`fit` and `load` give an `Adapted`: a CLIP with its trained adaptation, ready for new images."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vprompt_jax.adaptation import Adaptation, adapt, load_clip
from vprompt_jax.clip.config import Resize
from vprompt_jax.clip.preprocess import on_screen
from vprompt_jax.config import Config
from vprompt_jax.config import files as named_files
from vprompt_jax.data import contents
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.inference.images import Images, batch_of
from vprompt_jax.parts import Canvas
from vprompt_jax.parts.context import at_inference
from vprompt_jax.process import finite
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import result as result_lib
from vprompt_jax.train import run as run_lib
from vprompt_jax.train import workdir as folder
from vprompt_jax.train.checkpoint import Checkpoints
from vprompt_jax.train.progress import latest_params
from vprompt_jax.train.training import identity, initial_state


class Adapted:
    """A finished run's model, as inference applies it (no noise).

    Every image is treated alike, whatever else is in its batch: what is placed at random sits where
    evaluation puts a split's first example's.

    Attributes:
      adaptation: the model without its parameters.
      params: trained parameters, by part.
      assigned: assigned arrays, by name.
      result: the contents of `result.json`.
      model: as it is at inference.
      variables: of that model.
      best: whether the parameters are those best on val, not the last step's.
    """

    def __init__(
        self,
        adaptation: Adaptation,
        params: Mapping[str, Any],
        assigned: Mapping[str, Any],
        result: dict[str, Any],
        best: bool = False,
    ):
        self.adaptation, self.params, self.assigned = adaptation, params, assigned
        self.result, self.best = result, best
        # One device is enough here, and leaves the others' memory alone.
        self.model, variables = adaptation.at_inference(params, assigned)
        self.variables = jax.device_put(jax.device_get(variables), jax.devices()[0])
        self._jitted = jax.jit(self.apply)
        self._jitted_canvas = jax.jit(self._canvas)

    @property
    def config(self) -> Config:
        return self.adaptation.config

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.result["class_names"])

    @property
    def resolution(self) -> int:
        """Side R of the tower's input, in pixels."""
        return self.model.resolution

    @property
    def resize(self) -> Resize:
        """How an image becomes square: the tower's `config.resize`."""
        return self.model.clip.config.resize

    @functools.cached_property
    def prompt(self) -> np.ndarray | None:
        """What is added to a normalised image, float32 [R, R, 3]; None without a pixel prompt."""
        side = self.resolution
        canvas = self._jitted_canvas(self.variables, np.zeros((1, side, side, 3), np.uint8))
        return np.asarray(canvas.shown["prompt"][0]) if "prompt" in canvas.shown else None

    def apply(self, variables: Any, images: jax.Array) -> jax.Array:
        """Traceable: variables and uint8 [B, h, w, 3] -> float32 logits [B, C]."""
        with jax.default_matmul_precision(self.config.model.matmul_precision):
            return self.model.apply(variables, images, at_inference(self.config.seed))[0]

    def _canvas(self, variables: Any, images: jax.Array) -> Canvas:
        with jax.default_matmul_precision(self.config.model.matmul_precision):
            context = at_inference(self.config.seed)
            canvas: Any = self.model.apply(variables, images, context, method="canvas")
            return canvas

    def logits(self, images: Images) -> np.ndarray:
        """Logits of images.

        Args:
          images: uint8 [B, h, w, 3] of any one size, or a list of single images: uint8 [h, w, 3],
            PIL images, paths (`inference.images.batch_of`). A single image is a batch of one.

        Returns:
          float32 [B, C].

        Raises:
          UserError: if the images are anything else, or a logit is not finite.
        """
        logits = of_batch(
            self._jitted, self.variables, batch_of(images, self.resolution, resize=self.resize)
        )
        return checked(logits, self.variables)

    def probabilities(self, images: Images) -> np.ndarray:
        """Softmax of `logits`: float32 [B, C], in the order of `class_names`."""
        return softmax(self.logits(images))

    def predict(self, images: Images) -> list[str]:
        """The most likely class of each image; a list of one for a single image."""
        return [self.class_names[i] for i in self.logits(images).argmax(-1)]

    def on_screen(self, x: np.ndarray) -> np.ndarray:
        """Normalised pixels as a screen shows them; a prompt's values are clipped to 0..1."""
        c = self.model.clip.config
        return on_screen(x, c.mean, c.std)

    def inspect(self, images: Images) -> dict[str, np.ndarray]:
        """What the prompt does to images.

        Args:
          images: as of `logits`.

        Returns:
          "image" and "prompted" [B, R, R, 3] as a screen shows them (0..1, clipped), and for a
          run with a mask "edges" [B, R, R] in 0..1 and "marks" [B, g, g], with NaN where the
          template has no parameters.
        """
        pixels = batch_of(images, self.resolution, resize=self.resize)
        canvas = of_batch(self._jitted_canvas, self.variables, pixels)
        shown = {
            "image": self.on_screen(canvas.image),
            "prompted": self.on_screen(canvas.result),
        }
        if "marks" in canvas.shown:
            edges = np.asarray(canvas.shown["edges"])
            shown["edges"] = edges / np.maximum(edges.max((1, 2), keepdims=True), 1e-12)
            marks = np.asarray(canvas.shown["marks"])
            active = np.broadcast_to(canvas.shown["active"], marks.shape)
            shown["marks"] = np.where(active, marks, np.nan)
        return shown


def of_batch(function: Callable[[Any, np.ndarray], Any], variables: Any, images: np.ndarray) -> Any:
    """A compiled function's arrays [B, ...] for a batch that may be empty, which XLA is spared."""
    if len(images):
        return function(variables, images)
    one = np.zeros((1, *images.shape[1:]), np.uint8)
    return jax.tree.map(lambda array: array[:0], function(variables, one))


def checked(logits: Any, weights: Any) -> np.ndarray:
    """Logits [B, C] as a NumPy array.

    Args:
      logits: of a batch.
      weights: that they were computed with.

    Raises:
      UserError: if one is not finite: a label of such logits is none.
    """
    array = np.asarray(logits)
    with finite.explained("these images", weights):
        finite.check("logits", array)
    return array


def softmax(logits: np.ndarray) -> np.ndarray:
    """float32 [B, C] -> probabilities [B, C]."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def load(
    workdir: Path | str, *, best: bool = False, checkpoint: Path | str | None = None
) -> Adapted:
    """A finished run, without its dataset.

    Args:
      workdir: of the run.
      best: the parameters best on val, in place of the last step's.
      checkpoint: where the CLIP's weights are now; None for where they were in training.

    Raises:
      UserError: if the run has not finished, its weights are gone or others, or it has nothing best
        on val.
    """
    workdir = Path(workdir)
    result = result_lib.read(workdir, result_lib.TO_LOAD)
    if result is None:
        raise UserError(
            f"{workdir} holds no finished run (no result.json): name a run's workdir, or finish "
            "the run by giving its command again"
        )
    if best and result["test_accuracy_best_val"] is None:
        raise UserError(f"{workdir}: nothing was selected on val under protocol=paper: omit best")
    inputs = folder.read_inputs(workdir)
    config = _with_weights(folder.read_config(workdir), workdir, inputs, checkpoint)
    adaptation = adapted_from(config, result["class_names"], result["templates"])
    expected = inputs.sums.get("weights", adaptation.weights_hash)
    if expected != adaptation.weights_hash:
        raise UserError(
            f"{config.model.checkpoint} holds other weights than {workdir} was trained on (SHA-256 "
            f"{adaptation.weights_hash[:12]}..., not {expected[:12]}...): name a copy of those "
            "weights by --checkpoint (in Python: load(workdir, checkpoint=FILE))"
        )
    if not result["steps"] and not adaptation.initial_assigned():  # nothing was found out
        return Adapted(adaptation, adaptation.initial_params(), {}, result, best)
    learned = _restored(adaptation, workdir, result["steps"], best)
    return Adapted(adaptation, *learned, result, best)


def _with_weights(
    config: Config, workdir: Path, inputs: folder.Inputs, checkpoint: Path | str | None
) -> Config:
    """The config with the CLIP's weights where they are now."""
    key = "model.checkpoint"
    if checkpoint is not None:
        return named_files.naming(config, {key: str(checkpoint)})
    known = inputs.files.get(key)
    if known is not None and not Path(known).exists():
        raise UserError(
            f"the weights that {workdir} was trained on are no longer at {known}: name where they "
            "are now by --checkpoint (in Python: load(workdir, checkpoint=FILE))"
        )
    return config


def adapted_from(config: Config, class_names: Sequence[str], texts: Sequence[str]) -> Adaptation:
    """The model of a config on the checkpoint that the config names, without trained parameters.

    Raises:
      UserError: if the weights are missing or damaged, or a part does not fit the tower.
    """
    clip, variables = load_clip(config)
    return adapt(config, clip, variables, class_names, texts)


def _restored(
    adaptation: Adaptation, workdir: Path, steps: int, best: bool
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Parameters and assigned arrays from a finished run's checkpoints."""
    directory = workdir / "checkpoints"
    again = result_lib.AGAIN.format(workdir)
    if not directory.is_dir():
        raise UserError(f"{workdir} has no checkpoint of what was trained: to train again, {again}")
    checkpoints = Checkpoints(directory, identity(adaptation), read_only=True)
    try:
        if checkpoints.latest() is None:
            raise UserError(
                f"{directory} holds no checkpoint of what was trained: to train again, {again}"
            )
        return latest_params(initial_state(adaptation, steps), checkpoints, best=best)
    finally:
        checkpoints.close()


def fit(config: Any, dataset: Dataset, workdir: Path | str) -> Adapted:
    """Trains what a config describes on images that are already there.

    Args:
      config: a `ConfigDict` made from `config.default_config`; its `data` section says only how
        texts are made and val is cut.
      dataset: splits of uint8 images; `val` is cut from train if there is none.
      workdir: as of `train.fit`: a finished run on the same config and images is not run again.
        Whether they are the same is found out from all pixels (`contents.of_pixels`).

    Raises:
      UserError: as `train.fit`.
    """
    config = config.copy_and_resolve_references()
    config.data.source = "given"
    config.data.name = f"{dataset.name}-{contents.of_pixels(dataset)[:16]}"
    run_lib.fit(config, workdir, dataset)
    return load(workdir)
