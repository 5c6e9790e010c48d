"""The declaration of a part: its name, its config section, and how it is built.

A part is declared in the file that implements it, as a subclass of `Part`, and registered by one
line of `methods/registry.py`. The config's sections and checks, the order in which parts act, the
model, the optimiser and the report's names all come from these declarations.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

import jax
import numpy as np

from vprompt_jax.clip import sites as sites_lib
from vprompt_jax.clip.model import CLIP
from vprompt_jax.clip.sites import Site, Where
from vprompt_jax.clip.towers import TextConfig, ViTConfig
from vprompt_jax.parts.solver import Solver
from vprompt_jax.schema import Section, TrainedSection

S = TypeVar("S", bound=Section)


class Progress(NamedTuple):
    """How far a run is before a step.

    Attributes:
      epoch: int32 scalar, counted from 0.
      share: float32 scalar, the share of all steps that are done.
    """

    epoch: jax.Array
    share: jax.Array


# Gives a float32 scalar.
Schedule = Callable[[Progress], jax.Array]
# Where a part acts: on the pixels before the image tower, on activations inside it, on its weights,
# inside the text tower, on the image features, or on the training loss.
Side = Literal["pixels", "tower", "weights", "text", "head", "loss"]
SIDES: tuple[Side, ...] = ("pixels", "tower", "weights", "text", "head", "loss")


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a part may look at while it is built.

    Attributes:
      clip: the frozen CLIP.
      variables: its variables; only their shapes matter.
      classes: number of classes C.
      templates: number T of texts per class.
      dtype: dtype of the frozen tower's computation.
      sections: config sections of all parts that are on, by name.
      token_adder: name of the part that adds tokens to the sequence; None if no part does.
    """

    clip: CLIP
    variables: Mapping[str, Any]
    classes: int
    templates: int
    dtype: Any
    sections: Mapping[str, Section]
    token_adder: str | None = None

    @functools.cached_property
    def sites(self) -> dict[Where, Site]:
        """Every site of the image tower; cached, as finding them takes up to a second."""
        return sites_lib.sites_of(self.clip, self.variables)

    @property
    def resolution(self) -> int:
        """Side R of the tower's input, in pixels."""
        return self.clip.config.image_resolution

    @property
    def depth(self) -> int:
        """Number L of the tower's blocks."""
        return self.clip.config.depth


Seen = tuple[jax.Array, Mapping[str, jax.Array]]


class Assignment(Protocol):
    """Arrays that a part computes from counts over a split's images instead of training them."""

    @property
    def split(self) -> Literal["train", "val"]:
        """Whose images are counted."""
        ...

    @property
    def contexts(self) -> Sequence[Mapping[str, float]]:
        """Values of the context at inference, for each time that an image is seen."""
        ...

    def initial(self, seed: int) -> dict[str, np.ndarray]:
        """The arrays before training, by name."""
        ...

    def is_due(self, step: int, steps_per_epoch: int, steps: int) -> bool:
        """Whether to assign them anew before a step (counted from 0) of a run of `steps` steps."""
        ...

    def counts(self, seen: Sequence[Seen], batch: Mapping[str, jax.Array]) -> jax.Array:
        """A batch's share of the sums over the split.

        Args:
          seen: in each of `contexts`, logits float32 [B, C] and what the model says beside them.
          batch: with "label" and "weight".
        """
        ...

    def assigned(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays that follow from the sums."""
        ...


class Part(Generic[S]):
    """One way of adapting a CLIP.

    Attributes:
      name: name of its config section and of its parameters.
      section: dataclass of its config keys. If it is a `TrainedSection`, gradients train the part's
        parameters.
      switch: the key that says whether, or in what form, the part is on.
      kind: the value, or values, of `switch` that turn the part on; None if every value except the
        key's default does. Parts of one name are alternatives, told apart by `kind`.
      side: where it acts.
      order: rank among the parts of its side; the lowest acts first.
      also_on_texts: whether a part inside the image tower acts on the text side, too; its module is
        an `Adapter` and a `TextPart`.
      writes_texts: whether it puts learned words beside the class names, in place of a template.
      adds_tokens: whether it changes the number of tokens inside the tower.
      sweepable: the key that holds positions to sweep over; "" if there is none.
      reads_texts: whether it is a head that compares image features with the classes' texts.
      maps_sources: whether it is a head that reads `HeadInputs.source_logits`.
    """

    name: ClassVar[str]
    section: type[S]
    switch: ClassVar[str]
    kind: ClassVar[Any] = None
    side: ClassVar[Side]
    order: ClassVar[int] = 0
    also_on_texts: ClassVar[bool] = False
    writes_texts: ClassVar[bool] = False
    adds_tokens: ClassVar[bool] = False
    sweepable: ClassVar[str] = ""
    reads_texts: ClassVar[bool] = False
    maps_sources: ClassVar[bool] = False

    @property
    def trains(self) -> bool:
        return issubclass(self.section, TrainedSection)

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The values of `switch` that turn the part on; () if all but the default do."""
        if self.kind is None:
            return ()
        return self.kind if isinstance(self.kind, tuple) else (self.kind,)

    def is_on(self, value: Any) -> bool:
        """Whether a value of `switch` turns the part on."""
        if self.kinds:
            return value in self.kinds
        fields = {field.name: field.default for field in dataclasses.fields(self.section)}
        return bool(value != fields[self.switch])

    def check(self, section: S, sections: Mapping[str, Section]) -> None:
        """Refuses a section that no run can use, before anything is loaded.

        Args:
          section: the part's section.
          sections: sections of all parts that are on, by name.

        Raises:
          ValueError: saying what is wrong and what to do about it.
        """

    def build(self, section: S, around: Surroundings) -> Any:
        """Builds the part for a tower: a Flax module, or `SelectedWeights`.

        Raises:
          ValueError: if it does not fit the tower, saying why and what to do about it.
        """
        raise NotImplementedError

    def schedules(self, section: S) -> Mapping[str, Schedule]:
        """Values that change during a run, by the names they are logged under."""
        del section
        return {}

    def controls(self, section: S) -> Mapping[str, Mapping[str, float]]:
        """Evaluations on test that show what the part is worth.

        Returns:
          Values of the context at inference, by the name that the accuracy with them has in
          `result.json`.
        """
        del section
        return {}

    def assignment(self, section: S, around: Surroundings) -> Assignment | None:
        """How its assigned arrays are computed; None if it has none."""
        del section, around
        return None

    def solver(self, section: S) -> Solver | None:
        """What finds the part from all images' features; None if train steps alone do."""
        del section
        return None

    def arrays(self, section: S, around: Surroundings) -> Mapping[str, np.ndarray]:
        """Arrays that its solver finds beside trained parameters, as they are before it, by name.

        They travel with those of an `Assignment`. Their shapes follow from the config, the tower
        and the number of classes, since a finished run is loaded without its images.
        """
        del section, around
        return {}

    def transform(self, section: S, optimizer: Any) -> Any:
        """The part's optimiser (optax), given the one that its section names."""
        del section
        return optimizer

    def facts(self, section: S, built: Any, around: Surroundings) -> dict[str, Any]:
        """What `result.json` states about the built part."""
        del section, built, around
        return {}

    def warning(self, metrics: Mapping[str, float]) -> str | None:
        """A warning about the metrics of a whole split; None if they are fine."""
        del metrics
        return None

    def remedies(self) -> Iterable[str]:
        """What a user can change if steps are not finite, apart from the learning rate."""
        return ()


def needs_text(what: str, around: Surroundings, remedy: str) -> TextConfig:
    """Returns the text tower's config if there is one.

    Raises:
      ValueError: if there is none, naming what needs it and what to set.
    """
    text = around.clip.config.text
    if text is None:
        raise ValueError(
            f"{what} needs the classes' texts, and this checkpoint has no text tower: set {remedy}"
        )
    return text


def needs_vit(what: str, around: Surroundings) -> ViTConfig:
    """Returns the image tower's config if the tower is a vision transformer.

    Raises:
      ValueError: if it is not, naming what needs one.
    """
    vision = around.clip.config.vision
    if not isinstance(vision, ViTConfig):
        raise ValueError(f"{what} needs a vision transformer; this tower is a ResNet")
    return vision
