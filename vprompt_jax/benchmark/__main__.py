"""vprompt benchmark: speed, FLOPs and memory of each method's train step."""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from vprompt_jax.process import program


def parser() -> argparse.ArgumentParser:
    from vprompt_jax.methods import METHODS

    parser = argparse.ArgumentParser(prog="vprompt benchmark", description=__doc__)
    parser.add_argument("--method", nargs="+", choices=list(METHODS), metavar="METHOD",
                        help="default: all that train parameters and fit the tower")  # fmt: skip
    parser.add_argument("--tower", nargs="+", default=["mini-clip-rn"], help="a checkpoint or its "
                        "name; with --random a variant such as ViT-B/32")  # fmt: skip
    parser.add_argument("--random", action="store_true", help="random weights of a variant")
    parser.add_argument("--batch", nargs="+", type=int, default=[32], help="images per step")
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument(
        "--precision", default="highest", help="precision of matrix products, as in a config"
    )
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="a config key of all methods, such as head.kind=linear for a tower "
                        "without texts")  # fmt: skip
    parser.add_argument("--positions", action="store_true", help="AP at every position, cached")
    parser.add_argument("--remat", nargs="+", default=["none"], help="none, dots, blocks")
    parser.add_argument(
        "--repeats", type=int, default=7, help="timings, of which the median is taken"
    )
    parser.add_argument("--no_timing", action="store_true", help="the compiler's counts alone")
    parser.add_argument("--predict", type=int, metavar="IMAGES", help="predict an epoch of so many "
                        "images on other machines, from the counts alone")  # fmt: skip
    parser.add_argument("--fit", type=float, metavar="GIB", help="the largest batch in so much "
                        "memory, from the counts alone")  # fmt: skip
    parser.add_argument("--torch", action="store_true", help="also measure VP in torch")
    parser.add_argument("--start", action="store_true", help="seconds to the first step of the "
                        "quickstart, with a cold and a warm compilation cache")  # fmt: skip
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with program.user_errors():
        program.set_up_process()
        import jax

        from vprompt_jax.benchmark import machines, modes

        host = f"{os.cpu_count()} cores: {machines.processor()}"
        print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, {host}", flush=True)
        make = modes.predicted if args.predict else modes.fitting if args.fit else modes.measured
        tables = []
        with jax.default_matmul_precision(args.precision):
            for name, dtype in itertools.product(args.tower, args.dtype):
                tower = modes.load_tower(args, name, dtype)
                tables += [make(args, tower, batch) for batch in args.batch]
        figures: dict[str, Any] = {"tables": tables}
        if args.start:
            figures["seconds_to_first_step"] = _first_steps()
        if args.json:
            args.json.write_text(json.dumps(figures, indent=2) + "\n")


_FIRST_STEP = """
import sys
from vprompt_jax.process import program; program.set_up_process()
from vprompt_jax.config import default_config
from vprompt_jax.train import fit
config = default_config()
config.optim.epochs, config.optim.batch_size, config.mask.width = 1, 128, 16
config.prompt.learning_rate = config.mask.learning_rate = 0.1
print(fit(config, sys.argv[1])["seconds_to_first_step"])
"""


def _first_steps() -> dict[str, float]:
    """Seconds from process start to the end of AdaViPro's first step on the embedded digits."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("cold", "warm"):
            env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
            done = subprocess.run(
                [sys.executable, "-c", _FIRST_STEP, f"{folder}/{kind}"],
                env=env, capture_output=True, text=True, check=True,
            )  # fmt: skip
            seconds[kind] = float(done.stdout.split()[-1])
            print(f"first step of AdaViPro on the digits, {kind} cache: {seconds[kind]:.1f} s")
    return seconds


if __name__ == "__main__":
    main()
