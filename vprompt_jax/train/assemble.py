"""From a config to everything a run needs: model, frozen weights, data, optimiser."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax import clip as clip_lib
from vprompt_jax import data
from vprompt_jax.adapters import tuning
from vprompt_jax.build import build
from vprompt_jax.clip.model import CLIP
from vprompt_jax.data import pipeline
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.heads import mapping, text
from vprompt_jax.model import PromptedCLIP
from vprompt_jax.prompts import adavipro
from vprompt_jax.train import keys, optimizer
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
    """

    config: Any
    dataset: Dataset | None
    classes: int
    model: PromptedCLIP
    frozen: dict[str, Any]
    root: jax.Array
    steps: int
    steps_per_epoch: int

    @property
    def zero_shot_model(self) -> PromptedCLIP:
        """The same CLIP with its text head and nothing that is trained."""
        return PromptedCLIP(self.model.clip, start=self.model.start)

    def initial_params(self) -> dict[str, Any]:
        """Fresh parameters by part; those of "tune" are the checkpoint's own.

        With a mapping head there is a part "mapping", which is assigned instead of trained; it
        starts as a random map.
        """
        params = self.model.init_trained(keys.stream(keys.root(self.config.seed), "init"))
        tower = self.frozen["params"]["clip"]["visual"]
        if tuned := tuning.selected(tower, self.config.tune.weights):
            params["tune"] = jax.tree.map(lambda w: jnp.array(w, jnp.float32), tuned)
        if self.model.head == "mapping":
            sources = self.frozen["params"]["clip"]["classifier"]["bias"].shape[0]
            drawn = mapping.random_map(self.config.seed, self.classes, sources)
            params["mapping"] = {"label_map": drawn}
        return params

    def optimizer(self):
        """The optimiser of the trained parts."""
        c = self.config.optim
        warmup = c.warmup_steps
        if c.warmup_fraction is not None:
            warmup = round(c.warmup_fraction * self.steps)
        return optimizer.make(
            {
                part: (self.config[part].optimizer, self.config[part].learning_rate)
                for part in trained(self.initial_params())
            },
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
        opt_state = self.optimizer().init(trained(params))
        state = TrainState(np.zeros((), np.int32), params, opt_state)
        return jax.device_put(state, pipeline.replicated_sharding())


def load_clip(config) -> tuple[CLIP, dict]:
    """The CLIP of a resolved config and its variables, as `clip.load` gives them."""
    return clip_lib.load(
        config.model.checkpoint,
        activation=config.model.activation,
        dtype=jnp.dtype(config.model.dtype),
    )


def assemble_model(
    config, clip: CLIP, variables: dict, class_names: Sequence[str]
) -> tuple[PromptedCLIP, dict[str, Any]]:
    """The method's parts around a CLIP, and their frozen variables (host arrays).

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
        texts = text.class_texts(class_names, config.data.template)
        embeddings = np.asarray(text.encode_classes(clip, variables, texts))
        frozen["constants"]["text_features"] = embeddings
    return model, frozen


def assemble(config, dataset: Dataset | None = None) -> Run:
    """Loads the CLIP and the data of a resolved config and puts the method together.

    Args:
      config: resolved.
      dataset: takes the place of what `config.data` names.

    Raises:
      UserError: if weights or data are missing or damaged, or a size does not fit.
    """
    clip, variables = load_clip(config)
    if dataset is None:
        dataset = data.load(config, clip.config.image_resolution)
    else:
        dataset = data.prepare(dataset, config)
    model, frozen = assemble_model(config, clip, variables, dataset.class_names)
    per_epoch = pipeline.steps_per_epoch(len(dataset.train), config.optim.batch_size)
    run = Run(
        config=config,
        dataset=dataset,
        classes=len(dataset.class_names),
        model=model,
        frozen=jax.device_put(frozen, pipeline.replicated_sharding()),
        root=jax.device_put(keys.root(config.seed), pipeline.replicated_sharding()),
        steps=config.optim.epochs * per_epoch,
        steps_per_epoch=per_epoch,
    )
    return run if trained(run.initial_params()) else dataclasses.replace(run, steps=0)


def assemble_for_inference(config, class_names: Sequence[str], steps: int) -> Run:
    """A run of `steps` updates without its data: enough to restore it and to apply the model.

    Raises:
      UserError: if the weights are missing or damaged, or a size does not fit.
    """
    clip, variables = load_clip(config)
    model, frozen = assemble_model(config, clip, variables, class_names)
    return Run(
        config=config,
        dataset=None,
        classes=len(class_names),
        model=model,
        frozen=jax.device_put(frozen, pipeline.replicated_sharding()),
        root=jax.device_put(keys.root(config.seed), pipeline.replicated_sharding()),
        steps=steps,
        steps_per_epoch=1,  # counts in training only
    )
