"""Labels new images: python -m vprompt_jax.predict --workdir DIR IMAGE... | FOLDER | -"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vprompt_jax import cli
from vprompt_jax.data import images as images_lib
from vprompt_jax.errors import UserError

_LISTED = 20  # offenders named in one message
_TILE = 224  # least side of a tile of an overlay, in pixels


def find_images(arguments: Sequence[str], listing: Iterable[str]) -> list[Path]:
    """The image files that arguments stand for.

    Args:
      arguments: files; folders, searched at all depths; "-" for the lines of `listing`.
      listing: one path per line.

    Raises:
      UserError: if a file is missing, or there are no images at all; all offenders are listed.
    """
    paths: list[Path] = []
    missing = []
    for argument in arguments:
        names = [line.strip() for line in listing] if argument == "-" else [argument]
        for path in (Path(name) for name in names if name):
            if path.is_dir():
                paths += images_lib.images_in(path)
            elif path.is_file():
                paths.append(path)
            else:
                missing.append(str(path))
    if missing:
        more = f"\n  and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        listed = "\n  ".join(missing[:_LISTED])
        raise UserError(f"no such image or folder:\n  {listed}{more}")
    if not paths:
        raise UserError(f"no images in {', '.join(arguments)}")
    return paths


def batches(paths: Sequence[Path], size: int, resolution: int) -> Iterator[tuple]:
    """Reads images in batches of one shape, the last one filled up with copies.

    Yields:
      Paths, and uint8 [size, R, R, 3], whose first len(paths) images are theirs.

    Raises:
      UserError: naming an image that cannot be decoded.
    """
    size = min(size, len(paths))
    for start in range(0, len(paths), size):
        chunk = paths[start : start + size]
        images = [images_lib.decode(path, resolution) for path in chunk]
        images += [images[0]] * (size - len(chunk))
        yield chunk, np.stack(images)


def overlay(shown: dict[str, np.ndarray], index: int) -> Image.Image:
    """One picture of one image: as it is, its edges, the mask over it, and prompted.

    Args:
      shown: of `Adapted.inspect`.
      index: of the image in it.
    """
    image = shown["image"][index]
    tiles = [image]
    if "marks" in shown:
        tiles.append(np.repeat(shown["edges"][index][..., None], 3, -1))
        marks = shown["marks"][index]
        factor = len(image) // len(marks)
        marks = marks.repeat(factor, 0).repeat(factor, 1)[..., None]
        # Where the prompt is added: yellow; where the mask is off: blue; without prompt: grey.
        colours = np.where(marks == 1, (1.0, 0.92, 0.27), (0.0, 0.14, 0.31))
        colours = np.where(np.isnan(marks), 0.87, colours)
        tiles.append(0.6 * colours + 0.4 * image)
    tiles.append(shown["prompted"][index])
    enlarged = -(-_TILE // len(image))
    pixels = np.concatenate([t.repeat(enlarged, 0).repeat(enlarged, 1) for t in tiles], axis=1)
    return Image.fromarray(np.round(pixels * 255).astype(np.uint8))


def _overlay_path(out: Path, path: Path, taken: set[Path]) -> Path:
    """out/STEM.png, or out/STEM-2.png and so on where another image has the name."""
    candidate, number = out / f"{path.stem}.png", 2
    while candidate in taken:
        candidate, number = out / f"{path.stem}-{number}.png", number + 1
    taken.add(candidate)
    return candidate


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vprompt_jax.predict", description="Label images with a finished run."
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE",
                        help="files, folders, or - for paths on standard input")  # fmt: skip
    parser.add_argument("--workdir", required=True, help="a finished run, or an export of one")
    parser.add_argument("--top", type=int, default=3, help="labels per image (default: 3)")
    parser.add_argument("--best", action="store_true",
                        help="use the parameters best on val, not the last step's")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object per image")
    parser.add_argument("--overlay", type=Path, metavar="DIR",
                        help="write a PNG per image: it, edges, mask, prompted")  # fmt: skip
    parser.add_argument("--batch_size", type=int, default=64, help="(default: 64)")
    return parser


def _load(args: argparse.Namespace):
    """The model of a workdir: an `Adapted`, or an `export.Exported`, which only gives logits."""
    from vprompt_jax import adapted, export

    workdir = Path(args.workdir)
    if not export.is_export(workdir):
        return adapted.load(workdir, best=args.best)
    if args.best:
        raise UserError(f"{workdir} is an export, which holds one set of parameters: omit --best")
    model = export.load(workdir)
    if args.overlay and not isinstance(model, adapted.Adapted):
        raise UserError(f"{workdir} is an export, which gives labels only: omit --overlay")
    return model


def run(args: argparse.Namespace) -> None:
    """Prints labels as `_parser` describes.

    Raises:
      UserError: if images or the run are at fault.
    """
    if args.batch_size < 1 or args.top < 1:
        raise UserError("--batch_size and --top must be at least 1")
    paths = find_images(args.images, sys.stdin)
    model = _load(args)
    if args.overlay:
        try:
            args.overlay.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--overlay: cannot write to {args.overlay}: {error}") from error
    width = min(max(len(str(p)) for p in paths), 60)
    taken: set[Path] = set()
    for chunk, images in batches(paths, args.batch_size, model.resolution):
        probabilities = model.probabilities(images)
        shown = model.inspect(images) if args.overlay else {}
        for i, path in enumerate(chunk):
            order = np.argsort(-probabilities[i], kind="stable")[: args.top]
            top = [(model.class_names[c], float(probabilities[i, c])) for c in order]
            found = [{"label": name, "probability": round(p, 6)} for name, p in top]
            record = {"image": str(path), "top": found}
            if args.overlay:
                picture = _overlay_path(args.overlay, path, taken)
                overlay(shown, i).save(picture)
                record["overlay"] = str(picture)
            labels = "   ".join(f"{name} {100 * p:5.1f} %" for name, p in top)
            print(json.dumps(record) if args.json else f"{path!s:<{width}}   {labels}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    with cli.user_errors():
        cli.set_up_process()
        run(args)


if __name__ == "__main__":
    main()
