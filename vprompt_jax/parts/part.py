"""The declaration of a part: what it is called, its config section, and how it is built.

A part is declared in the file that implements it, as a subclass of `Part`, and registered by one
line of `methods/registry.py`. The config's sections and checks, the order in which parts act, the
model, the optimiser and the report's names all come from these declarations.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import jax
import numpy as np

from vprompt_jax.clip import sites as sites_lib
from vprompt_jax.clip.model import CLIP
from vprompt_jax.clip.sites import Site, Where
from vprompt_jax.clip.towers import ViTConfig
from vprompt_jax.schema import Section, TrainedSection

S = TypeVar("S", bound=Section)
# Epoch, an int32 scalar counted from 0 -> a float32 scalar.
Schedule = Callable[[jax.Array], jax.Array]
# Where a part acts: on the pixels before the tower, inside the tower, in place of some of the
# tower's weights, inside the text tower, or on the image features.
Side = Literal["pixels", "tower", "weights", "text", "head"]
SIDES: tuple[Side, ...] = ("pixels", "tower", "weights", "text", "head")


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a part may look at while it is built.

    Attributes:
      clip: the frozen CLIP.
      variables: its variables; only their shapes matter.
      classes: number of classes C.
      dtype: of the frozen tower's computation.
      sections: of all parts that are on, by name.
      token_adder: name of a part that is on and adds tokens to the sequence; None if none does.
    """

    clip: CLIP
    variables: Mapping[str, Any]
    classes: int
    dtype: Any
    sections: Mapping[str, Section]
    token_adder: str | None = None

    @functools.cached_property
    def sites(self) -> dict[Where, Site]:
        """Every site of the image tower; walking a large one takes most of a second."""
        return sites_lib.sites_of(self.clip, self.variables)

    @property
    def resolution(self) -> int:
        """Side R of the tower's input, in pixels."""
        return self.clip.config.image_resolution

    @property
    def depth(self) -> int:
        """Number L of the tower's blocks."""
        return self.clip.config.depth


class Assignment(Protocol):
    """Arrays that a part assigns by looking at the training images, instead of training them."""

    def initial(self, seed: int) -> dict[str, np.ndarray]:
        """The arrays before training, by name."""
        ...

    def is_due(self, step: int, steps_per_epoch: int) -> bool:
        """Whether they are assigned anew before a step (counted from 0)."""
        ...

    def counts(self, out: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> jax.Array:
        """What is summed over the training images, from the model's outputs for a batch."""
        ...

    def assigned(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays from the sums."""
        ...


class Solver(Protocol):
    """Finds a part's parameters from image features in one go."""

    def __call__(
        self,
        params: Any,
        train: tuple[np.ndarray, np.ndarray],
        val: tuple[np.ndarray, np.ndarray] | None,
    ) -> Any:
        """Parameters of the structure of `params`.

        Args:
          params: the part's, at the start.
          train: features float32 [N, E] and labels int32 [N].
          val: the same, to choose by; None without.
        """
        ...


class Part(Generic[S]):
    """One thing that adapts a CLIP.

    Attributes:
      name: of its config section and of its parameters.
      section: the dataclass of its keys. A part whose section is a `TrainedSection` has parameters
        that gradients train.
      switch: the key that says whether, or in what form, the part is there.
      kind: the value of `switch` under which the part is on; None if every value but the key's
        default is. Parts of one name are alternatives, told apart by `kind`.
      side: where it acts.
      order: among the parts of its side, the lowest first.
      adds_tokens: whether it changes the number of tokens inside of the tower.
      sweepable: key over which an activation's position can be swept; "" for none.
    """

    name: ClassVar[str]
    section: type[S]
    switch: ClassVar[str]
    kind: ClassVar[Any] = None
    side: ClassVar[Side]
    order: ClassVar[int] = 0
    adds_tokens: ClassVar[bool] = False
    sweepable: ClassVar[str] = ""

    @property
    def trains(self) -> bool:
        return issubclass(self.section, TrainedSection)

    def is_on(self, value: Any) -> bool:
        """Whether a value of `switch` means that the part is there."""
        if self.kind is not None:
            return bool(value == self.kind)
        fields = {field.name: field.default for field in dataclasses.fields(self.section)}
        return bool(value != fields[self.switch])

    def check(self, section: S, sections: Mapping[str, Section]) -> None:
        """Refuses a section that no run could have, before anything is loaded.

        Args:
          section: the part's.
          sections: of all parts that are on.

        Raises:
          ValueError: saying what is wrong and the way out.
        """

    def build(self, section: S, around: Surroundings) -> Any:
        """The part on a tower: a Flax module, or `SelectedWeights`.

        Raises:
          ValueError: if it does not fit the tower, saying why and the way out.
        """
        raise NotImplementedError

    def schedules(self, section: S) -> Mapping[str, Schedule]:
        """Values that change from epoch to epoch, by the name under which they are logged."""
        del section
        return {}

    def assignment(self, section: S, around: Surroundings) -> Assignment | None:
        """What is assigned rather than trained; None for nothing."""
        del section, around
        return None

    def solver(self, section: S) -> "Solver | None":
        """How the part is solved from image features in place of train steps; None if it is not."""
        del section
        return None

    def transform(self, section: S, optimizer: Any) -> Any:
        """The optimiser (optax) of the part, from the one that its section names."""
        del section
        return optimizer

    def facts(self, section: S, built: Any, around: Surroundings) -> dict[str, Any]:
        """What is said of the built part in `result.json`."""
        del section, built, around
        return {}

    def warning(self, metrics: Mapping[str, float]) -> str | None:
        """A word on metrics of a whole split that the user should see; None if they are fine."""
        del metrics
        return None

    def remedies(self) -> Iterable[str]:
        """What a user can change where steps are not finite, beside the learning rate."""
        return ()


def needs_vit(what: str, around: Surroundings) -> ViTConfig:
    """The image tower's architecture, if it is a vision transformer.

    Raises:
      ValueError: naming what needs one, if it is not.
    """
    vision = around.clip.config.vision
    if not isinstance(vision, ViTConfig):
        raise ValueError(f"{what} needs a vision transformer; this tower is a ResNet")
    return vision
