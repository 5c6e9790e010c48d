"""Measures a finished run elsewhere: on new classes, on other datasets, on shifts of its own.

The model is given the classes of what it is measured on alone, as in CoCoOp's code (base-to-new,
cross-dataset transfer, domain generalisation).
"""

from collections.abc import Iterable
from pathlib import Path

from vprompt_jax import data
from vprompt_jax.config import Config
from vprompt_jax.config.also import OWN_NEW, Target, targets
from vprompt_jax.config.resolve import resolve
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.evaluate import ELSEWHERE, NAME
from vprompt_jax.evaluate.elsewhere import refuse_seen
from vprompt_jax.evaluate.evaluation import evaluated, provenance
from vprompt_jax.inference import adapted
from vprompt_jax.inference.adapted import Adapted
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.files import read_json

_ANY_SIDE = 224  # of images that are not decoded
_AGAIN = "delete it and give the run's command again"


def measure(workdir: Path) -> list[str]:
    """Measures a finished run on the test images of what its config names, each once.

    Args:
      workdir: of the run; `elsewhere/NAME/` gets `evaluation.json` and `predictions.parquet`.

    Returns:
      A line for each, which says the accuracy, or why there is none.

    Raises:
      UserError: if images cannot be loaded, or a file of the run is damaged.
    """
    config = resolve(read_json(workdir / "config.json", _AGAIN))
    model: Adapted | None = None
    lines = []
    for target in targets(config.data, config.eval.also):
        folder = workdir / ELSEWHERE / target.folder
        called = "new classes" if target.folder == OWN_NEW else target.folder
        if not (folder / NAME).is_file():
            model = model or adapted.load(workdir)
            if reason := _measured(model, target, folder):
                lines.append(f"{called}: not measured: {reason}")
                continue
        accuracy = read_json(folder / NAME, _AGAIN)["accuracy"]
        lines.append(f"{called}: {accuracy:.2%} on test")
    return lines


def find(configs: Iterable[Config]) -> None:
    """Lists the images that runs are to be measured on, so that they are known to be there.

    Args:
      configs: of runs that have not begun.

    Raises:
      UserError: if images are not where a config says, or cannot be fetched.
    """
    planned = {t.place: t for c in configs for t in targets(c.data, c.eval.also) if not t.own}
    for target in planned.values():
        data.labelled(target.section, "test", _ANY_SIDE, cut=True, decoded=False)


def _measured(model: Adapted, target: Target, folder: Path) -> str:
    """Writes what the model reaches; or says why the model cannot tell these classes apart."""
    dataset = _dataset(model, target)
    texts = data.text_templates(target.section, dataset)
    size = model.config.eval.batch_size
    try:
        if target.own and target.section.classes == "new":
            refuse_seen(model, dataset.class_names)
        found = evaluated(model, dataset.class_names, dataset.test, size, "images", texts=texts)
    except UserError as error:
        return str(error)
    about = {"classes": target.section.classes}
    found.write(folder, "test", provenance(model, dataset) | about)
    return ""


def _dataset(model: Adapted, target: Target) -> Dataset:
    """The images of a target; a half of the run's own dataset has the splits of the run."""
    side, resize = model.resolution, model.resize
    if target.own:
        return data.load(target.section, model.config.protocol, side, resize=resize)
    return data.labelled(target.section, "test", side, resize=resize, cut=True)
