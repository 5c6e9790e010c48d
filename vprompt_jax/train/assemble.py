"""From a config to everything a run needs: model, frozen weights, data, optimiser."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax import clip as clip_lib
from vprompt_jax import data, methods
from vprompt_jax.data import pipeline
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.heads import text
from vprompt_jax.model import PromptedCLIP
from vprompt_jax.prompts import adavipro
from vprompt_jax.train import keys, optimizer
from vprompt_jax.train.step import TrainState


@dataclasses.dataclass(frozen=True)
class Run:
    """The fixed parts of a run.

    Attributes:
      config: resolved.
      dataset: with `val` None under `protocol=paper`.
      model: the prompted CLIP.
      frozen: its frozen variables, a copy on every device.
      root: the root key, a copy on every device.
      steps: number of updates; 0 where nothing is trained.
      steps_per_epoch: updates per pass over train.
    """

    config: Any
    dataset: Dataset
    model: PromptedCLIP
    frozen: dict[str, Any]
    root: jax.Array
    steps: int
    steps_per_epoch: int

    @property
    def zero_shot_model(self) -> PromptedCLIP:
        """The same CLIP without prompt, mask and trained head."""
        return PromptedCLIP(self.model.clip)

    def initial_params(self) -> dict[str, Any]:
        """Fresh trained parameters, by part."""
        return self.model.init_trained(keys.stream(keys.root(self.config.seed), "init"))

    def optimizer(self):
        """The optimiser of the trained parts."""
        c = self.config.optim
        warmup = c.warmup_steps
        if c.warmup_fraction is not None:
            warmup = round(c.warmup_fraction * self.steps)
        return optimizer.make(
            {part: self.config[part].learning_rate for part in self.initial_params()},
            warmup=warmup,
            steps=self.steps,
            momentum=c.momentum,
            weight_decay=c.weight_decay,
        )

    def temperature(self, step: jax.Array) -> jax.Array:
        """Gumbel temperature at a step; it falls once per epoch."""
        m = self.config.mask
        return adavipro.temperature_at(
            step // self.steps_per_epoch, m.temperature, m.temperature_decay, m.temperature_min
        )

    def initial_state(self) -> TrainState:
        """The state before the first step, a copy on every device."""
        params = self.initial_params()
        state = TrainState(np.zeros((), np.int32), params, self.optimizer().init(params))
        return jax.device_put(state, pipeline.replicated_sharding())


def assemble(config) -> Run:
    """Loads the CLIP and the data of a resolved config and puts the method together.

    The texts are encoded here, once; the text tower takes no part in training.

    Raises:
      UserError: if weights or data are missing or damaged, or a size does not fit.
    """
    clip, variables = clip_lib.load(
        config.model.checkpoint,
        activation=config.model.activation,
        dtype=jnp.dtype(config.model.dtype),
    )
    dataset = data.load(config, clip.config.image_resolution)
    model = methods.build(config, clip, len(dataset.class_names))
    texts = text.class_texts(dataset.class_names, data.templates(config, dataset))
    embeddings = np.asarray(text.encode_classes(clip, variables, texts))
    used = {k: variables["params"][k] for k in ("visual", "logit_scale")}
    frozen = {"params": {"clip": used}, "constants": {"text_features": embeddings}}
    if "batch_stats" in variables:
        frozen["batch_stats"] = {"clip": variables["batch_stats"]}
    per_epoch = pipeline.steps_per_epoch(len(dataset.train), config.optim.batch_size)
    trains = any(part is not None for part in (model.prompt, model.mask, model.head))
    return Run(
        config=config,
        dataset=dataset,
        model=model,
        frozen=jax.device_put(frozen, pipeline.replicated_sharding()),
        root=jax.device_put(keys.root(config.seed), pipeline.replicated_sharding()),
        steps=config.optim.epochs * per_epoch if trains else 0,
        steps_per_epoch=per_epoch,
    )
