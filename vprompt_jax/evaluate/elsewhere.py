"""Fits a model's classes and a dataset's to each other."""

from collections.abc import Sequence

import jax
import numpy as np

from vprompt_jax.adaptation import Adaptation
from vprompt_jax.adaptation.build import build, parts_of
from vprompt_jax.data import catalogue
from vprompt_jax.data.dataset import as_text
from vprompt_jax.data.info import is_wordnet_id
from vprompt_jax.export.files import Exported
from vprompt_jax.inference.adapted import Adapted, adapted_from
from vprompt_jax.parts import keys
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import some_of

Model = Adapted | Exported
_SHOWN = 5  # ids in a message


def fitted(
    model: Model, class_names: Sequence[str], texts: Sequence[str] | None = None
) -> tuple[Model, np.ndarray]:
    """A model that knows a dataset's classes, and the model's label of each of them.

    If all of them are among the model's, the model stays as it is. If not, a model that recognises
    classes by their texts is given those of the dataset, in place of its own.

    Args:
      model: of a run or an export.
      class_names: of the dataset, C of them.
      texts: templates that other classes are put into; None for the run's.

    Returns:
      The model, and int [C].

    Raises:
      UserError: if the model knows its own classes alone, and the dataset has others, or if those
        are WordNet ids.
    """
    known = {as_text(name): label for label, name in enumerate(model.class_names)}
    unknown = [name for name in class_names if as_text(name) not in known]
    if not unknown:
        return model, np.array([known[as_text(name)] for name in class_names])
    if ids := list(filter(is_wordnet_id, unknown)):
        named = [name for name, row in catalogue.CATALOGUE.items() if row.names == "imagenet"]
        raise UserError(
            f"the model does not know {some_of(ids, most=_SHOWN, separator=', ')}: these WordNet "
            f"ids become words with the dataset's name (--name={'|'.join(named)}); otherwise, "
            "rename the classes to words"
        )
    if isinstance(model, Exported) or not _by_text(model):
        kind = "An export" if isinstance(model, Exported) else "This head"
        raise UserError(
            f"the model does not know {some_of(unknown, separator=', ')}; it knows "
            f"{some_of(model.class_names, separator=', ')}. {kind} cannot learn others without "
            "training: rename the classes, leave these out, or evaluate a run whose head compares "
            "images with the classes' texts"
        )
    templates = list(model.result["templates"] if texts is None else texts)
    adaptation = adapted_from(model.config, class_names, templates)
    if of_own := _bound_to_classes(model, adaptation):
        raise UserError(
            f"the model does not know {some_of(unknown, separator=', ')}, and what "
            f"config.{of_own} learned belongs to its own classes: rename the classes, leave these "
            "out, or evaluate a run whose parts all classes share"
        )
    result = model.result | {"class_names": list(class_names), "templates": templates}
    other = Adapted(adaptation, model.params, model.assigned, result, model.best)
    return other, np.arange(len(class_names))


def refuse_seen(model: Model, class_names: Sequence[str]) -> None:
    """Refuses classes as new ones that a run on base classes was trained on.

    Raises:
      UserError: naming them.
    """
    if isinstance(model, Exported) or model.config.data.classes != "base":
        return
    known = set(map(as_text, model.class_names))
    if seen := [name for name in class_names if as_text(name) in known]:
        raise UserError(
            f"of the new classes, the run was trained on {some_of(seen, separator=', ')}: they are "
            "not new to it. The classes have another order than in the run's own data: arrange "
            "them alike, leave these out, or omit --classes"
        )


def _bound_to_classes(model: Adapted, other: Adaptation) -> str:
    """A part of which something has another shape with another number of classes; "" if there is
    none."""
    frozen = other.frozen
    variables = {"params": frozen["params"]["clip"]}
    if "batch_stats" in frozen:
        variables["batch_stats"] = frozen["batch_stats"]["clip"]
    more = len(model.class_names) + 1
    parts = build(model.config, other.model.clip, variables, more, len(other.texts))
    shapes = jax.tree.map(np.shape, jax.eval_shape(parts.model.init_parts, keys.root(0)))
    for name, tree in shapes.items():
        if jax.tree.map(np.shape, dict(model.params[name])) != tree:
            return name
    for name, arrays in parts.arrays.items():
        if any(np.shape(model.assigned[k]) != array.shape for k, array in arrays.items()):
            return name
    return ""


def _by_text(model: Adapted) -> bool:
    return any(part.reads_texts for part in parts_of(model.config.parts))
