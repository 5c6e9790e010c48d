"""Whether a finished run's data are still what it was trained and tested on."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from vprompt_jax import data
from vprompt_jax.clip.config import CLIPConfig
from vprompt_jax.config import Config
from vprompt_jax.data import catalogue, tfds_source
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.process.errors import UserError


def check(
    config: Config, result: Mapping[str, Any], workdir: Path, dataset: Dataset | None = None
) -> None:
    """Refuses to pass off a finished run's result as one on data that have changed since.

    Nothing is decoded for it (but under `data.on_bad_image=skip`, which has to). Where the data
    cannot be reached any more, this is said, and nothing refused.

    Args:
      config: of the run.
      result: the contents of its `result.json`.
      workdir: of the run.
      dataset: takes the place of what `config.data` names.

    Raises:
      UserError: if the data are others, saying in what.
    """
    reason = None
    try:
        changed = _changed(config, result, dataset)
    except UserError as error:
        if _is_reachable(config):
            raise UserError(
                f"{workdir} holds a finished run, and its data have changed since: {error}\n"
                "choose another --workdir for a run on the data as they are now"
            ) from error
        reason = str(error)
        changed = ""
    if changed:
        raise UserError(
            f"{workdir} holds a finished run on other data: {changed}\nchoose another --workdir "
            "for a run on the data as they are now, or put the old ones back"
        )
    if reason is not None and jax.process_index() == 0:
        print(
            f"the data of the finished run in {workdir} cannot be read any more ({reason}): its "
            "result is returned without comparing them",
            file=sys.stderr,
        )


def _changed(config: Config, result: Mapping[str, Any], dataset: Dataset | None) -> str:
    """In what a run's dataset has changed; "" if in nothing that is known of both."""
    section = config.data
    decoded = section.on_bad_image == "skip"
    if dataset is not None:
        return _difference(result, data.prepare(dataset, section, config.protocol, decoded=decoded))
    before = result.get("dataset_contents")
    if section.source == "tfds" and not section.split_file and before is not None:
        # The version decides everything; reading the labels of a large dataset takes minutes.
        row = catalogue.find(section.name)
        tfds_name = row.tfds if row and row.tfds else section.name
        now = tfds_source.version(tfds_source.builder(tfds_name, section.dir))
        return "" if now == before else f"{before} -> {now}"
    clip = CLIPConfig.from_json(result["clip"])
    loaded = data.load(
        section, config.protocol, clip.image_resolution, resize=clip.resize, decoded=decoded
    )
    return _difference(result, loaded)


def _is_reachable(config: Config) -> bool:
    """Whether the data are there, so that an error over them is about what they have become."""
    section = config.data
    paths = [section.split_file] if section.split_file else []
    if section.source in ("folder", "manifest", "huggingface", "arrays"):
        paths.append(section.dir)
    found = all(os.access(Path(path).expanduser(), os.R_OK) for path in paths)
    return section.source not in ("tfds", "given") and found


def _difference(result: Mapping[str, Any], now: Dataset) -> str:
    """In what a dataset differs from that of a result."""
    sizes = {name: len(split) for name, split in now.splits()}
    lines = [
        f"{name} {before:,} -> {sizes.get(name, 0):,} images"
        for name, before in result["split_sizes"].items()
        if before != sizes.get(name, 0)
    ]
    old, new = result["class_names"], list(now.class_names)
    if old != new:
        lines.append(f"classes {len(old)} -> {len(new)}" if len(old) != len(new) else "class names")
    if not lines and result["dataset_fingerprint"] != now.fingerprint:
        lines.append("as many images, of other names, labels or splits")
    contents = result.get("dataset_contents")  # absent in results of earlier versions
    if not lines and contents is not None and contents != now.contents:
        lines.append("other images under the same names")
    return ", ".join(lines)
