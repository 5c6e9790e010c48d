"""Labels new images: vprompt predict --workdir DIR IMAGE... | FOLDER | -"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vprompt_jax.predict.overlay import overlay, overlay_path, refuse_inputs
from vprompt_jax.predict.pictures import batches, find_images, readable
from vprompt_jax.process import program
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import printable


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vprompt predict", description="Label images with a finished run."
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE",
                        help="files, folders, or - for paths on standard input")  # fmt: skip
    parser.add_argument("--workdir", "--model", required=True,
                        help="a finished run, an export of one, or owner/name on Hugging Face's "
                        "hub")  # fmt: skip
    parser.add_argument("--checkpoint", metavar="FILE",
                        help="where the CLIP's weights are now, if they have moved")  # fmt: skip
    parser.add_argument("--top", type=int, default=3, help="labels per image (default: 3)")
    parser.add_argument("--best", action="store_true",
                        help="use the parameters best on val, not the last step's")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object per image")
    parser.add_argument("--overlay", type=Path, metavar="DIR",
                        help="write a PNG per image: image, edges, mask, prompted")  # fmt: skip
    parser.add_argument("--on_bad_image", choices=("stop", "skip"), default="stop",
                        help="at a file that cannot be decoded: stop (default), or label the "
                        "others and name it")  # fmt: skip
    parser.add_argument("--batch_size", type=int, default=64, help="(default: 64)")
    return parser


def _load(args: argparse.Namespace) -> Any:
    """Loads a workdir's model: an `Adapted`, or an `export.Exported`, which only gives logits."""
    from vprompt_jax.export.files import Exported, load_either

    model = load_either(args.workdir, best=args.best, checkpoint=args.checkpoint)
    if args.overlay and isinstance(model, Exported):
        raise UserError(f"{args.workdir} is an export, which gives labels only: omit --overlay")
    return model


def run(args: argparse.Namespace) -> None:
    """Prints labels as `_parser` describes; names on standard error what has been left out.

    Raises:
      UserError: if the images or the run cannot be used.
    """
    if args.batch_size < 1 or args.top < 1:
        raise UserError("--batch_size and --top must be at least 1")
    if isinstance(sys.stdin, io.TextIOWrapper):  # file names need not be UTF-8
        sys.stdin.reconfigure(errors="surrogateescape")
    files, left_out = find_images(args.images, sys.stdin)
    paths, bad = readable(files, args.on_bad_image)
    left_out += bad
    model = _load(args)
    if args.overlay:
        refuse_inputs(args.overlay, paths)
        try:
            args.overlay.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--overlay: cannot write to {args.overlay}: {error}") from error
    width = min(max(len(printable(p)) for p in paths), 60)
    taken: set[Path] = set()
    read_batches = batches(
        paths, args.batch_size, model.resolution, args.on_bad_image, left_out, model.resize
    )
    for chunk, images in read_batches:
        probabilities = model.probabilities(images)
        shown = model.inspect(images) if args.overlay else {}
        for i, path in enumerate(chunk):
            order = np.argsort(-probabilities[i], kind="stable")[: args.top]
            top = [(model.class_names[c], float(probabilities[i, c])) for c in order]
            rows = [{"label": name, "probability": round(p, 6)} for name, p in top]
            record: dict[str, Any] = {"image": str(path), "top": rows}
            if args.overlay:
                picture = overlay_path(args.overlay, path, taken)
                overlay(shown, i).save(picture)
                record["overlay"] = str(picture)
            labels = "   ".join(f"{name} {100 * p:5.1f} %" for name, p in top)
            line = f"{printable(path):<{width}}   {labels}"
            print(json.dumps(record) if args.json else line, flush=True)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    with program.user_errors("lower --batch_size"):
        program.set_up_process()
        run(args)


if __name__ == "__main__":
    main()
