"""Writes a finished run as files: vprompt export --workdir DIR --out FOLDER"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vprompt_jax.export import hub
from vprompt_jax.export.files import write
from vprompt_jax.inference.adapted import load as load_run
from vprompt_jax.process import program
from vprompt_jax.process.errors import UserError


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vprompt export", description="Write a finished run as files to hand on."
    )
    parser.add_argument("--workdir", type=Path, required=True, help="a finished run")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--checkpoint", metavar="FILE",
                        help="where the CLIP's weights are now, if they have moved")  # fmt: skip
    parser.add_argument("--side", type=int,
                        help="of the input images, in pixels; default: the tower's")  # fmt: skip
    parser.add_argument("--best", action="store_true", help="the parameters best on val")
    parser.add_argument("--bare", action="store_true", help="the adaptation alone")
    parser.add_argument("--push", metavar="OWNER/NAME",
                        help="upload it to this repository of Hugging Face's hub, too")  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    with program.user_errors("export it with --bare"):
        program.set_up_process()
        if args.side is not None and args.side < 1:
            raise UserError("--side must be at least 1")
        adapted = load_run(args.workdir, best=args.best, checkpoint=args.checkpoint)
        for path in write(adapted, args.out, side=args.side, bare=args.bare):
            print(f"{path.stat().st_size:>12,}  {path}")
        if args.push is not None:
            print(f"pushed to {hub.push(args.out, args.push)}")


if __name__ == "__main__":
    main()
