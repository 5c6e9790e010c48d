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
from vprompt_jax.train import identity, keys, optimizer
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
      identity: what a save must agree with to be continued: the config, and hashes of the
        checkpoint's weights and of the data.
    """

    config: Any
    dataset: Dataset
    model: PromptedCLIP
    frozen: dict[str, Any]
    root: jax.Array
    steps: int
    steps_per_epoch: int
    identity: dict[str, Any]

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
        return optimizer.make(
            {part: self.config[part].learning_rate for part in self.initial_params()},
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
        return {
            part: float(optimizer.schedule(peak, self._warmup, self.steps)(step))
            for part, peak in (
                (part, self.config[part].learning_rate) for part in self.initial_params()
            )
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
        zero = np.zeros((), np.int32)
        norms = {part: np.zeros((), np.float32) for part in params}
        state = TrainState(zero, params, self.optimizer().init(params), zero, norms)
        # From the host: an array of this process's devices cannot be put on those of others.
        return jax.device_put(jax.device_get(state), pipeline.replicated_sharding())


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
    texts = text.class_texts(dataset.class_names, config.data.template)
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
        root=jax.jit(keys.root, out_shardings=pipeline.replicated_sharding())(config.seed),
        steps=config.optim.epochs * per_epoch if trains else 0,
        steps_per_epoch=per_epoch,
        identity={
            "config": config.to_dict(),
            "weights": identity.of_arrays(variables),
            "data": identity.of_dataset(dataset),
        },
    )
