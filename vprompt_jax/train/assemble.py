"""From a config to everything a run needs: model, frozen weights, data, optimiser."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax import clip as clip_lib
from vprompt_jax import data
from vprompt_jax.adaptation.build import build
from vprompt_jax.adaptation.model import PromptedCLIP
from vprompt_jax.adapters import tuning
from vprompt_jax.clip import class_texts as text
from vprompt_jax.clip.model import CLIP
from vprompt_jax.data import pipeline
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.heads import mapping
from vprompt_jax.prompts import adavipro
from vprompt_jax.train import identity, keys, optimizer
from vprompt_jax.train.step import TrainState, trained


@dataclasses.dataclass(frozen=True)
class Run:
    """The fixed parts of a run.

    Attributes:
      config: resolved.
      dataset: with `val` None under `protocol=paper`; None where only the model is wanted.
      classes: number of them.
      model: the prompted CLIP.
      frozen: its frozen variables, a copy on every device.
      root: the root key, a copy on every device.
      steps: number of updates; 0 where nothing is trained.
      steps_per_epoch: updates per pass over train.
      identity: what a save must agree with to be continued: the config, and hashes of the
        checkpoint's weights and of the data.
    """

    config: Any
    dataset: Dataset | None
    classes: int
    model: PromptedCLIP
    frozen: dict[str, Any]
    root: jax.Array
    steps: int
    steps_per_epoch: int
    identity: dict[str, Any]

    @property
    def zero_shot_model(self) -> PromptedCLIP:
        """The same CLIP with its text head and nothing that is trained."""
        return PromptedCLIP(self.model.clip, start=self.model.start)

    @property
    def parts(self) -> list[str]:
        """Names of what gradients train."""
        parts = self.model.trained_parts
        return parts if self.config.tune.weights == "none" else [*parts, "tune"]

    def initial_params(self) -> dict[str, Any]:
        """Fresh parameters by part; those of "tune" are the checkpoint's own.

        With a mapping head there is a part "mapping", which is assigned instead of trained; it
        starts as a random map.
        """
        params = self.model.init_trained(keys.stream(keys.root(self.config.seed), "init"))
        tower = self.frozen["params"]["clip"]["visual"]
        if tuned := tuning.selected(tower, self.config.tune.weights, self.model.clip.config):
            params["tune"] = jax.tree.map(lambda w: np.array(w, np.float32), jax.device_get(tuned))
        if self.model.head == "mapping":
            sources = self.frozen["params"]["clip"]["classifier"]["bias"].shape[0]
            drawn = mapping.random_map(self.config.seed, self.classes, sources)
            params["mapping"] = {"label_map": drawn}
        return params

    def optimizer(self):
        """The optimiser of the trained parts."""
        c = self.config.optim
        return optimizer.make(
            {
                part: (self.config[part].optimizer, self.config[part].learning_rate)
                for part in self.parts
            },
            warmup=self._warmup,
            steps=self.steps,
            momentum=c.momentum,
            weight_decay=c.weight_decay,
        )

    @property
    def _warmup(self) -> int:
        c = self.config.optim
        if c.warmup_fraction is None:
            return c.warmup_steps
        return round(c.warmup_fraction * self.steps)

    def learning_rates(self, step: int) -> dict[str, float]:
        """Learning rate by trained part at a step."""
        rates = {part: self.config[part].learning_rate for part in self.parts}
        return {
            part: float(optimizer.schedule(peak, self._warmup, self.steps)(step))
            for part, peak in rates.items()
        }

    def temperature(self, step: jax.Array) -> jax.Array:
        """Gumbel temperature at a step; it falls once per epoch."""
        m = self.config.mask
        return adavipro.temperature_at(
            step // self.steps_per_epoch, m.temperature, m.temperature_decay, m.temperature_min
        )

    def initial_state(self) -> TrainState:
        """The state before the first step, a copy on every device."""
        params = self.initial_params()
        moving = trained(params)
        zero = np.zeros((), np.int32)
        norms = {part: np.zeros((), np.float32) for part in moving}
        state = TrainState(zero, params, self.optimizer().init(moving), zero, norms)
        # From the host: an array of this process's devices cannot be put on those of others.
        return jax.device_put(jax.device_get(state), pipeline.replicated_sharding())


def load_clip(config) -> tuple[CLIP, dict]:
    """The CLIP of a resolved config and its variables, as `clip.load` gives them."""
    return clip_lib.load(
        config.model.checkpoint,
        activation=config.model.activation,
        dtype=jnp.dtype(config.model.dtype),
    )


def run_around(
    config,
    clip: CLIP,
    variables: dict,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    dataset: Dataset | None = None,
    steps: int = 1,
    steps_per_epoch: int = 1,
) -> Run:
    """Puts the method's parts around a CLIP.

    The texts are encoded here, once; the text tower takes no part in training.

    Raises:
      UserError: if a part does not fit the tower.
    """
    model = build(config, clip, variables, len(class_names))
    used = {k: v for k, v in variables["params"].items() if k != "text"}
    frozen = {"params": {"clip": used}, "constants": {}}
    if "batch_stats" in variables:
        frozen["batch_stats"] = {"clip": variables["batch_stats"]}
    if clip.config.has_text:
        texts = text.class_texts(class_names, templates)
        embeddings = np.asarray(text.encode_classes(clip, variables, texts))
        frozen["constants"]["text_features"] = embeddings
    made_of = {"config": config.to_dict(), "weights": identity.of_arrays(variables)}
    if dataset is not None:
        made_of["data"] = identity.of_dataset(dataset)
    run = Run(
        config=config,
        dataset=dataset,
        classes=len(class_names),
        model=model,
        frozen=jax.device_put(frozen, pipeline.replicated_sharding()),
        root=jax.jit(keys.root, out_shardings=pipeline.replicated_sharding())(config.seed),
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        identity=made_of,
    )
    return run if run.parts else dataclasses.replace(run, steps=0)


def assemble(config, dataset: Dataset | None = None) -> Run:
    """Loads the CLIP and the data of a resolved config and puts the method together.

    Args:
      config: resolved.
      dataset: takes the place of what `config.data` names.

    Raises:
      UserError: if weights or data are missing or damaged, or a part does not fit the tower.
    """
    clip, variables = load_clip(config)
    if dataset is None:
        dataset = data.load(config, clip.config.image_resolution)
    else:
        dataset = data.prepare(dataset, config)
    per_epoch = pipeline.steps_per_epoch(len(dataset.train), config.optim.batch_size)
    return run_around(
        config,
        clip,
        variables,
        dataset.class_names,
        data.templates(config, dataset),
        dataset=dataset,
        steps=config.optim.epochs * per_epoch,
        steps_per_epoch=per_epoch,
    )


def assemble_for_inference(
    config, class_names: Sequence[str], templates: Sequence[str], steps: int
) -> Run:
    """A run of `steps` updates without its data: enough to restore it and to apply the model.

    Raises:
      UserError: if the weights are missing or damaged, or a part does not fit the tower.
    """
    clip, variables = load_clip(config)
    return run_around(config, clip, variables, class_names, templates, steps=steps)
