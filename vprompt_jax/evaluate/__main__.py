"""Measures a finished run: vprompt evaluate --workdir DIR [--dir FOLDER]"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vprompt_jax.process import program
from vprompt_jax.process.errors import UserError

if TYPE_CHECKING:
    from vprompt_jax.data.dataset import Dataset, Split
    from vprompt_jax.evaluate.evaluation import Among

# Keys of config.data that decide which images there are.
_KEYS = ("label", "on_bad_image", "split", "split_file", "workers")
_SHOWN = 10  # classes, and pairs of classes, in the terminal


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vprompt evaluate",
        description="Measure a finished run on its own test split, or on other labelled images.",
    )
    parser.add_argument("--workdir", "--model", required=True,
                        help="a finished run, an export of one, or owner/name on Hugging Face's "
                        "hub")  # fmt: skip
    parser.add_argument("--dir", help="other images: a folder of classes, or what --source reads")
    parser.add_argument("--source", help="config.data.source; default: folder, with --dir")
    parser.add_argument("--name", default="",
                        help="config.data.name: of a dataset in TFDS, or a row of the table of "
                        "datasets, which names the classes")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="another config.data key of the images: "
                        + ", ".join(_KEYS))  # fmt: skip
    parser.add_argument("--split", choices=("test", "val", "train"), default="test",
                        help="default: test; all images where there is none")  # fmt: skip
    parser.add_argument("--classes", choices=("all", "base", "new"),
                        help="all classes, or half of them; default: the run's own")  # fmt: skip
    parser.add_argument("--among", choices=("run", "images"),
                        help="whose classes are the possible answers; default: the run's, for "
                        "ImageNet-A and ImageNet-R the images'")  # fmt: skip
    parser.add_argument("--checkpoint", metavar="FILE",
                        help="where the CLIP's weights are now, if they have moved")  # fmt: skip
    parser.add_argument("--best", action="store_true", help="the parameters best on val")
    parser.add_argument("--batch_size", type=int, default=64, help="(default: 64)")
    parser.add_argument("--json", action="store_true", help="print all measures as JSON")
    parser.add_argument("--out", type=Path, metavar="FOLDER",
                        help="write evaluation.json and predictions.parquet there")  # fmt: skip
    return parser


def run(args: argparse.Namespace) -> None:
    """Prints what `_parser` describes.

    Raises:
      UserError: if the run or the images cannot be used, or their classes do not fit.
    """
    from vprompt_jax.data import catalogue
    from vprompt_jax.evaluate.elsewhere import refuse_seen
    from vprompt_jax.evaluate.evaluation import evaluated, provenance
    from vprompt_jax.export.files import load_either

    if args.batch_size < 1:
        raise UserError("--batch_size must be at least 1")
    if args.out is not None and (args.out / "result.json").exists():
        raise UserError(f"--out {args.out} holds a run: choose another folder")
    model = load_either(args.workdir, best=args.best, checkpoint=args.checkpoint)
    dataset, split = _images(args, model)
    if args.classes == "new":
        refuse_seen(model, dataset.class_names)
    row = catalogue.find(args.name)
    among: Among = args.among or ("images" if row is not None and row.is_part else "run")
    found = evaluated(model, dataset.class_names, split, args.batch_size, among)
    if found.among == "images" != among:
        print("note: the run does not know all classes of the images; it is given theirs in place "
              "of its own", file=sys.stderr)  # fmt: skip
    if args.out is not None:
        found.write(args.out, args.split, {"run": str(args.workdir), **provenance(model, dataset)})
    print(json.dumps(found.measures) if args.json else _lines(dataset.name, found.measures))


def _images(args: argparse.Namespace, model: Any) -> "tuple[Dataset, Split]":
    """The dataset and the split of the images to evaluate on."""
    from vprompt_jax import data

    elsewhere = args.dir is not None or args.source is not None
    if (args.name or args.set) and not elsewhere:
        raise UserError("--name and --set are of other images: say where by --dir or --source")
    if not elsewhere and not hasattr(model, "config"):
        raise UserError("an export does not know its images: name some by --dir")
    if not elsewhere:
        section = model.config.data
        if args.classes is not None:
            section = dataclasses.replace(section, classes=args.classes)
        dataset = data.load(section, model.config.protocol, model.resolution, resize=model.resize)
        splits = dict(dataset.splits())
        if args.split not in splits:
            raise UserError(f"this run has no {args.split} split: choose another --split")
        return dataset, splits[args.split]
    from vprompt_jax.config.dataset import of_dataset

    given = of_dataset(args.source or "folder", args.name, args.dir or "", args.set, _KEYS).data
    section = dataclasses.replace(given, classes=args.classes or "all")
    dataset = data.labelled(section, args.split, model.resolution, resize=model.resize)
    return dataset, dataset.test


def _lines(name: str, found: dict[str, Any]) -> str:
    """The measures as a reader's summary."""
    low, high = found["accuracy_interval"]
    lines = [
        f"{name}: {found['images']:,} images",
        f"accuracy           {found['accuracy']:.2%}   (95 % interval {low:.2%} to {high:.2%})",
    ]
    if found["top5_accuracy"] is not None:
        lines.append(f"top-5 accuracy     {found['top5_accuracy']:.2%}")
    scaled = found["calibration_error_scaled"]
    beside = "" if scaled is None else f"   ({scaled:.2%} with the temperature fitted on val)"
    lines.append(f"calibration error  {found['calibration_error']:.2%}{beside}")
    rows = [row for row in found["by_class"] if row["images"]]
    rows = sorted(rows, key=lambda row: row["accuracy"])[:_SHOWN]
    width = max(len(row["class"]) for row in rows)
    lines += ["", "classes, the worst first"]
    lines += [
        f"  {row['class']:<{width}}  {row['accuracy']:>7.2%}  of {row['images']:,}" for row in rows
    ]
    if found["confusion"] is not None:
        names = [row["class"] for row in found["by_class"]]
        counts = np.array(found["confusion"])
        np.fill_diagonal(counts, 0)
        order = np.argsort(-counts, axis=None, kind="stable")[:_SHOWN]
        pairs = [divmod(int(i), len(names)) for i in order if counts.flat[i]]
        lines += ["", "most often confused"] if pairs else []
        lines += [f"  {counts[a, b]:>5,}  {names[a]} taken for {names[b]}" for a, b in pairs]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    with program.user_errors("lower --batch_size"):
        program.set_up_process()
        run(args)


if __name__ == "__main__":
    main()
