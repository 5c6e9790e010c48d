"""Base-to-new generalisation: a run on the base classes, measured on the new ones.

The model is given the new classes' texts alone, as in CoCoOp (arXiv 2203.05557, section 4.1).
"""

import dataclasses
from pathlib import Path

from vprompt_jax import data
from vprompt_jax.adaptation.build import parts_of
from vprompt_jax.evaluate import NAME, NEW
from vprompt_jax.evaluate.evaluation import evaluated
from vprompt_jax.inference import adapted
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.files import read_json


def measure(workdir: Path) -> str:
    """Measures a finished run on base classes on the test images of the new ones, once.

    Args:
      workdir: of the run; `new/evaluation.json` and `new/predictions.parquet` are written there.

    Returns:
      A line that says the accuracy, or why there is none; "" for a run on other classes.
    """
    about = read_json(workdir / "config.json", "delete it and give the run's command again")
    if about["data"].get("classes") != "base":
        return ""
    path = workdir / NEW / NAME
    if not path.is_file():
        model = adapted.load(workdir)
        if not any(part.reads_texts for part in parts_of(model.config.parts)):
            return "new classes: not measured, since this head knows the base classes alone"
        section = dataclasses.replace(model.config.data, classes="new")
        dataset = data.load(section, model.config.protocol, model.resolution, resize=model.resize)
        try:
            size = model.config.eval.batch_size
            found = evaluated(model, dataset.class_names, dataset.test, size)
        except UserError as error:
            return f"new classes: not measured: {error}"
        found.write(workdir / NEW, "test", {"dataset": dataset.name, "classes": "new"})
    accuracy = read_json(path, "delete it and give the run's command again")["accuracy"]
    return f"new classes: {accuracy:.2%} on test"
