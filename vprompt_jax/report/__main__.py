"""Reports on finished runs: vprompt report DIR... [--out DIR]"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vprompt_jax.process import program


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vprompt report",
        description="Tables (Markdown, LaTeX, CSV), figures (PNG, SVG) and an HTML page of runs.",
    )
    parser.add_argument("dirs", nargs="+", type=Path, metavar="DIR",
                        help="a finished run, or a folder of such (a sweep's)")  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder to write to; default: the first DIR")
    parser.add_argument("--by_dataset", action="store_true",
                        help="several datasets are meant: a column for each")  # fmt: skip
    parser.add_argument("--checkpoint", nargs="+", default=[], metavar="FILE",
                        help="for pictures: where the runs' CLIPs are now, if moved")  # fmt: skip
    parser.add_argument("--data_dir", metavar="DIR",
                        help="for pictures: where the images are now, if moved")  # fmt: skip
    parser.add_argument("--title", default="Report", help="of the page")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    with program.user_errors():
        program.set_up_process()
        from vprompt_jax import report
        from vprompt_jax.report import results

        workdirs = results.find(args.dirs)
        out = args.out or args.dirs[0]
        for path in report.write(
            workdirs,
            out,
            by_dataset=args.by_dataset,
            title=args.title,
            checkpoints=args.checkpoint,
            data_dir=args.data_dir,
        ):
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
