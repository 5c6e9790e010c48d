"""The models and images of runs, for what a report shows beside numbers."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

from vprompt_jax import data
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.inference import adapted
from vprompt_jax.process.errors import UserError
from vprompt_jax.report.results import Record
from vprompt_jax.train.workdir import read_inputs

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where weights and images are now.

    Attributes:
      checkpoints: files tried for a run whose own weights are no longer where they were.
      data_dir: takes the place of `config.data.dir`; None if nothing has moved.
    """

    checkpoints: Sequence[str] = ()
    data_dir: str | None = None

    def model(self, record: Record) -> adapted.Adapted:
        """A run's model.

        Raises:
          UserError: if its weights or its checkpoints are gone.
        """
        try:
            return adapted.load(record.workdir)
        except UserError as error:
            problem = error
        for checkpoint in self.checkpoints:
            try:
                return adapted.load(record.workdir, checkpoint=checkpoint)
            except UserError as error:
                problem = error
        raise problem

    def dataset(self, record: Record, model: adapted.Adapted) -> Dataset:
        """A run's dataset.

        Raises:
          UserError: if the images are gone or others, or were given in Python.
        """
        section = model.config.data
        if self.data_dir is not None:
            section = dataclasses.replace(section, dir=self.data_dir)
        try:
            dataset = data.load(
                section, model.config.protocol, model.resolution, resize=model.resize
            )
        except UserError as error:
            raise UserError(f"{error} (if the images have moved, pass --data_dir)") from error
        known = read_inputs(record.workdir).sums.get("data")
        if self.data_dir is not None and known is not None and dataset.identity != known:
            raise UserError(
                f"{self.data_dir} holds other images than {record.workdir} was trained on: pass "
                "their folder by --data_dir"
            )
        return dataset


def where_possible(what: str, make: Callable[[], T], otherwise: T) -> T:
    """Makes a part of the report, or says in one line why it is left out."""
    try:
        return make()
    except UserError as error:
        print(f"left out: {what}: {' '.join(str(error).split())}")
        return otherwise
