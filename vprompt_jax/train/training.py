"""What is needed to train an adapted CLIP: data, number of steps, optimiser, schedules."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vprompt_jax import data
from vprompt_jax.adaptation import Adaptation, adapt, load_clip
from vprompt_jax.adaptation.build import parts_of
from vprompt_jax.clip.checkpoints.locate import public_name
from vprompt_jax.clip.class_texts import (
    indistinguishable,
    indistinguishable_message,
    unlearned_message,
)
from vprompt_jax.config import Config
from vprompt_jax.data import pipeline
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.parts import Part, Progress, Solver, keys
from vprompt_jax.process import cluster, parallel
from vprompt_jax.process.errors import UserError
from vprompt_jax.schema import TrainedSection
from vprompt_jax.train import optimizer
from vprompt_jax.train.step import TrainState, Values

_VP_WARMUP = 1000  # steps, where the run is long enough


@dataclasses.dataclass(frozen=True)
class Training:
    """The fixed parts of a run.

    Attributes:
      adaptation: the model and its frozen weights.
      dataset: with `val` None under `protocol=paper`; of images, or of cached activations.
      root: the root key, a copy on every device.
      steps: number of updates; 0 where nothing is trained.
      steps_per_epoch: updates per pass over train.
    """

    adaptation: Adaptation
    dataset: Dataset
    root: jax.Array
    steps: int
    steps_per_epoch: int

    @property
    def config(self) -> Config:
        return self.adaptation.config

    @property
    def parts(self) -> list[Part[Any]]:
        """Declarations of the parts that are on."""
        return parts_of(self.config.parts)

    @property
    def identity(self) -> dict[str, Any]:
        """What a save must agree with to be continued: the config, and hashes of the checkpoint's
        weights and of the data."""
        return identity(self.adaptation) | {"data": self.dataset.identity}

    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser of the trained parts."""
        return optimizer_of(self.config, self.steps)

    @property
    def has_text(self) -> bool:
        """Whether the CLIP has a text tower, which makes it a zero-shot classifier."""
        return self.adaptation.model.clip.config.has_text

    @property
    def warmup(self) -> int:
        """Steps of linear warm-up; 0 where there are no steps."""
        return 0 if self.is_solved else warmup_of(self.config, self.steps)

    @property
    def warnings(self) -> list[str]:
        """What the user should know before training."""
        lines: list[str] = []
        c = self.config.optim
        chosen = c.warmup_steps is not None or c.warmup_fraction is not None
        if self.steps and not self.is_solved and not chosen and self.warmup < _VP_WARMUP:
            lines.append(
                f"warm-up shortened to {self.warmup} of {self.steps} steps (VP's {_VP_WARMUP} are "
                "for runs of ten times as many); config.optim.warmup_steps or warmup_fraction "
                "choose another"
            )
        if any(part.reads_texts for part in self.parts):
            texts = self.adaptation.frozen["constants"]["text_features"]
            pairs = indistinguishable(texts, self.adaptation.class_names)
            lines += [indistinguishable_message(pairs)] if pairs else []
            unknown, classes = self.adaptation.unlearned, len(self.adaptation.class_names)
            lines += [unlearned_message(unknown, classes)] if unknown else []
        if (found := self.solver()) is not None:
            line = found[1].warning(self.dataset.train.labels)
            lines += [line] if line else []
        return lines

    def learning_rates(self, step: jax.Array) -> Values:
        """Learning rate by trained part at a step."""
        step = step.astype(jnp.float32)  # optax divides it
        return {
            name: jnp.asarray(_rates(self.config, section, self.steps)(step))
            for name, section in self.config.trained.items()
        }

    def values(self, step: jax.Array) -> Values:
        """What the parts' schedules give at a step."""
        done = step.astype(jnp.float32) / max(self.steps, 1)
        progress = Progress(step // self.steps_per_epoch, done)
        return {
            name: schedule(progress)
            for part in self.parts
            for name, schedule in part.schedules(self.config.parts[part.name]).items()
        }

    @property
    def class_weights(self) -> np.ndarray | None:
        """float32 [C], inverse to the classes' sizes in train and 1 on average over its examples;
        None for no weights."""
        if self.config.optim.class_weights == "none":
            return None
        classes = len(self.dataset.class_names)
        counts = np.bincount(self.dataset.train.labels, minlength=classes)
        return (counts.sum() / (classes * counts)).astype(np.float32)

    @property
    def remedies(self) -> list[str]:
        """What can be changed where outputs are not finite and the weights are."""
        rates = [f"lower config.{name}.learning_rate" for name in self.config.trained]
        wider = ["set config.model.dtype=float32"] if self.config.model.dtype != "float32" else []
        return rates + wider

    @property
    def is_solved(self) -> bool:
        """Whether a solver takes the place of all train steps."""
        found = self.solver()
        return found is not None and not found[1].before_steps

    def solver(self) -> tuple[str, Solver] | None:
        """The part that has a solver, by name, and the solver; None for none."""
        for part in self.parts:
            if (solver := part.solver(self.config.parts[part.name])) is not None:
                return part.name, solver
        return None

    def initial_state(self) -> TrainState:
        """The state before the first step, a copy on every device."""
        return initial_state(self.adaptation, self.steps)


def warmup_of(config: Config, steps: int) -> int:
    """Number of steps of linear warm-up of a run of a number of steps."""
    c = config.optim
    if c.warmup_fraction is not None:
        return round(c.warmup_fraction * steps)
    if c.warmup_steps is not None:
        return c.warmup_steps
    return min(_VP_WARMUP, steps // 10)


def _rates(config: Config, section: TrainedSection, steps: int) -> optax.Schedule:
    """A part's learning rate by step."""
    return optimizer.schedule(section.learning_rate, warmup_of(config, steps), steps)


def optimizer_of(config: Config, steps: int) -> optax.GradientTransformation:
    """The optimiser of a config's trained parts over a number of steps."""
    c = config.optim
    rules = {}
    for part in parts_of(config.parts):
        section = config.trained.get(part.name)
        if section is not None:
            rates = _rates(config, section, steps)
            rule = optimizer.rule(section.optimizer, rates, c.momentum, c.weight_decay)
            rules[part.name] = part.transform(section, rule)
    together = optimizer.by_part(rules)
    if c.average_mean:
        together = optimizer.averaging(
            together, optimizer.gaussian(c.average_mean, c.average_width, steps)
        )
    return optimizer.averaging(together, optimizer.moving(c.average)) if c.average else together


def initial_state(adaptation: Adaptation, steps: int) -> TrainState:
    """The state before the first of a number of steps, a copy on every device."""
    params = adaptation.initial_params()
    zero = jnp.zeros((), jnp.int32)
    norms = {part: jnp.zeros((), jnp.float32) for part in params}
    opt_state = optimizer_of(adaptation.config, steps).init(params)
    assigned = adaptation.initial_assigned()
    state = TrainState(zero, params, assigned, opt_state, zero, norms)
    # From the host: an array of this process's devices cannot be put on those of others.
    return jax.device_put(jax.device_get(state), parallel.replicated())


def identity(adaptation: Adaptation) -> dict[str, Any]:
    """What parameters must agree with to fit an adaptation."""
    return {"config": adaptation.config.as_dict(), "weights": adaptation.weights_hash}


def around(adaptation: Adaptation, dataset: Dataset) -> Training:
    """The training of an adaptation on a prepared dataset.

    Raises:
      UserError: if the warm-up that the config sets is as long as the run.
    """
    c = adaptation.config.optim
    per_epoch = pipeline.steps_per_epoch(len(dataset.train), c.batch_size)
    root = jax.jit(keys.root, out_shardings=parallel.replicated())(adaptation.config.seed)
    steps = c.epochs * per_epoch if adaptation.config.trained else 0
    check_warmup(adaptation.config, steps)
    return Training(adaptation, dataset, root, steps, per_epoch)


def check_warmup(config: Config, steps: int) -> None:
    """Refuses a warm-up that is as long as a run of `steps` steps.

    Raises:
      UserError: if it is.
    """
    warmup = warmup_of(config, steps)
    # One step of warm-up is none: it has the full rate.
    if config.optim.warmup_fraction is None and warmup > 1 and steps and warmup >= steps:
        raise UserError(
            f"config.optim.warmup_steps={warmup}, but the run has {steps} steps: the learning rate "
            "would never be what was asked for, nor decay. Set fewer, or "
            "config.optim.warmup_fraction (0.1: a tenth of the run) in their place, or more epochs"
        )


def assemble(config: Config, dataset: Dataset | None = None) -> Training:
    """Loads the CLIP and the data of a config and puts the parts together.

    Args:
      config: of the run.
      dataset: takes the place of what `config.data` names.

    Raises:
      UserError: if weights or data are missing or damaged, or a part does not fit the tower.
    """
    cluster.say(f"loading {public_name(config.model.checkpoint)}")
    clip, variables = load_clip(config)
    if dataset is None:
        cluster.say(f"reading {config.data.name or config.data.dir or config.data.source}")
        dataset = data.load(
            config.data, config.protocol, clip.config.image_resolution, resize=clip.config.resize
        )
    else:
        dataset = data.prepare(dataset, config.data, config.protocol)
    texts = data.text_templates(config.data, dataset)
    return around(adapt(config, clip, variables, dataset.class_names, texts), dataset)


def trained_counts(params: Mapping[str, Any]) -> dict[str, int]:
    """Number of trained parameters by part."""
    return {part: sum(leaf.size for leaf in jax.tree.leaves(tree)) for part, tree in params.items()}
