"""`vprompt data NAME|FOLDER`: prints a dataset's card, draws samples, times reading."""

import argparse
from pathlib import Path

from vprompt_jax.process import files, program
from vprompt_jax.process.errors import UserError


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vprompt data", description=__doc__)
    parser.add_argument(
        "name",
        nargs="?",
        help="a row of the table, TFDS's name, or a folder of images; none: list",
    )
    parser.add_argument("--source", help="config.data.source; tfds, or digits for that name")
    parser.add_argument("--dir", default="", help="the folder or file, or TFDS's data_dir")
    parser.add_argument("--download", action="store_true", help="let TFDS fetch what is missing")
    parser.add_argument("--resolution", type=int, default=224, help="of the tower, in pixels")
    parser.add_argument("--grid", help="where the samples go (default NAME.png; numbered if "
                        "there is such a file)")  # fmt: skip
    parser.add_argument("--time", action="store_true", help="measure reading")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other config.data key: few_shot=4, split=vtab",
    )
    return parser


def _find_folder(args: argparse.Namespace) -> None:
    """Takes a folder that is given by itself, as NAME or by --dir, for a folder of photographs."""
    from vprompt_jax.data import catalogue

    if args.name is None and args.dir:
        args.name = Path(args.dir).resolve().name
    elif args.name is None or args.dir or args.source or catalogue.find(args.name):
        return
    elif Path(args.name).is_dir():
        args.dir, args.name = args.name, Path(args.name).resolve().name
    else:
        return
    args.source = args.source or "folder"


def main() -> None:
    """Prints the card; loads the data only if it is on this disk, or with `--download`."""
    args = parser().parse_args()
    with program.user_errors():
        program.set_up_process()
        from vprompt_jax import data
        from vprompt_jax.config.dataset import of_dataset
        from vprompt_jax.data import card, catalogue, speed, tfds_source

        _find_folder(args)
        if args.name is None:
            for name, known in catalogue.CATALOGUE.items():
                print(f"{name:<22}{known.classes:>5} classes  {known.about}")
            return
        source = args.source or ("digits" if args.name == "digits" else "tfds")
        row = catalogue.find(args.name)
        if row is not None:
            print(card.of_row(args.name, row), end="\n\n")
        if source == "tfds" and not args.download:
            if row is not None and row.tfds is None:
                return
            builder = tfds_source.builder((row and row.tfds) or args.name, args.dir)
            if not tfds_source.is_prepared(builder):
                print(f"not prepared in {builder.data_dir}; --download lets TFDS fetch it")
                return
        grid = files.unused(Path(args.grid or f"{args.name.replace('/', '-')}.png"))
        if source == "folder" and grid.resolve().is_relative_to(Path(args.dir).resolve()):
            raise UserError(
                f"--grid {grid} would be one of the images of {args.dir}: choose a path outside of "
                "that folder"
            )
        config = of_dataset(source, args.name, args.dir, args.set)
        if row is not None and row.for_evaluation:
            dataset = data.labelled(config.data, "test", args.resolution)
        else:
            dataset = data.load(config.data, config.protocol, args.resolution)
        print(card.of_dataset(dataset))
        card.save_grid(dataset, grid)
        print(f"samples in {grid}")
        if args.time:
            read = dataset.train if len(dataset.train) else dataset.test
            print(speed.report(read, config.data.workers))


if __name__ == "__main__":
    main()
