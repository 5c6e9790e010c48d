"""python -m vprompt_jax.benchmark: speed, FLOPs and memory of a train step, method by method."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from vprompt_jax import cli


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    from vprompt_jax.methods import METHODS

    parser = argparse.ArgumentParser(prog="python -m vprompt_jax.benchmark", description=__doc__)
    trained = [m for m in METHODS if m not in ("tp", "ilm")]
    parser.add_argument("--method", nargs="+", default=trained, choices=trained, metavar="METHOD",
                        help=f"of {', '.join(trained)}; default all")  # fmt: skip
    parser.add_argument("--tower", nargs="+", default=["mini-clip-rn"], help="a checkpoint or its "
                        "name; with --random a variant such as ViT-B/32")  # fmt: skip
    parser.add_argument("--random", action="store_true", help="random weights of a variant")
    parser.add_argument("--batch", nargs="+", type=int, default=[32], help="images a step")
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--precision", default="highest", help="of matrix products, as in a config")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--positions", action="store_true", help="AP at every position, cached")
    parser.add_argument("--remat", nargs="+", default=["none"], help="none, dots, blocks")
    parser.add_argument("--repeats", type=int, default=7, help="timings of which the median counts")
    parser.add_argument("--no_timing", action="store_true", help="the compiler's counts alone")
    parser.add_argument("--torch", action="store_true", help="VP in torch beside it")
    parser.add_argument("--start", action="store_true", help="seconds to the first step of the "
                        "quickstart, with a cold and a warm compilation cache")  # fmt: skip
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = _arguments(argv)
    with cli.user_errors():
        cli.set_up_process()
        import jax

        print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, "
              f"{os.cpu_count()} cores", flush=True)  # fmt: skip
        tables = []
        for tower in args.tower:
            for dtype in args.dtype:
                for batch in args.batch:
                    with jax.default_matmul_precision(args.precision):
                        tables.append(_table(args, tower, dtype, batch))
        figures = {"tables": tables}
        if args.start:
            figures["seconds_to_first_step"] = _first_steps()
        if args.json:
            args.json.write_text(json.dumps(figures, indent=2) + "\n")


def _config(args, method: str, dtype: str, batch: int, remat: str):
    from vprompt_jax.config import default_config

    config = default_config()
    config.method.name = method
    config.model.dtype, config.model.remat = dtype, remat
    config.optim.batch_size = config.eval.batch_size = batch
    return config


def _table(args, tower: str, dtype: str, batch: int) -> dict:
    import jax.numpy as jnp

    from vprompt_jax.benchmark import measure, rows, torch_side
    from vprompt_jax.clip import load

    get = rows.random_weights if args.random else load
    clip, variables = get(tower, dtype=jnp.dtype(dtype))
    wanted = [(m, _config(args, m, dtype, batch, r), r) for m in args.method for r in args.remat]
    made = []
    with tempfile.TemporaryDirectory() as workdir:
        for method, config, remat in wanted:
            positions = range(clip.config.depth + 1) if args.positions and method == "ap" else [0]
            for position in positions:
                name = method if remat == "none" else f"{method}, remat {remat}"
                if method == "ap":
                    config.ap.positions = (position,)
                    name = f"{name} at {position}"
                made.append(
                    rows.make_row(config, name, clip, variables, args.classes, Path(workdir))
                )
                print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    matmul, matmul_flops = measure.matmul_program(dtype)
    times: list[float] = []
    names = []
    if not args.no_timing:
        programs = [matmul, *(row.run_step for row in made)]
        if args.torch:
            for careful in (False, True):
                step = torch_side.make_step(clip.config, batch, args.classes, careful)
                programs.append(step)
                names.append(f"torch, {'careful' if careful else 'public'}")
        times = measure.seconds(programs, args.repeats)
    result = {"tower": tower, "dtype": dtype, "batch": batch, "rows": []}
    rate = matmul_flops / times[0] if times else None
    if rate:
        result["matmul_gflops_per_second"] = rate / 1e9
    for i, row in enumerate(made):
        figures = {
            "method": row.name,
            "trained_parameters": row.parameters,
            "gflop_per_image": row.cost.flops / batch / 1e9,
            "flops_over_floor": row.cost.flops / row.floor if row.floor else None,
            "temp_mib": row.cost.temp_bytes / 2**20,
            "gbyte_accessed": row.cost.bytes / 1e9,
            "bytes_per_image": row.bytes_per_image,
            "compilations": row.compilations,
        }
        if rate:
            figures["images_per_second"] = batch / times[i + 1]
            figures["share_of_matmul_rate"] = row.cost.flops / times[i + 1] / rate
        result["rows"].append(figures)
    for name, taken in zip(names, times[len(made) + 1 :], strict=True):
        result["rows"].append({"method": name, "images_per_second": batch / taken})
    _print(result)
    return result


_COLUMNS = (
    ("method", "method", "s"),
    ("trained_parameters", "trained", ",d"),
    ("images_per_second", "images/s", ".1f"),
    ("gflop_per_image", "GFLOP/image", ".3f"),
    ("flops_over_floor", "x floor", ".3f"),
    ("share_of_matmul_rate", "of matmul rate", ".2f"),
    ("temp_mib", "temp MiB", ",.0f"),
    ("gbyte_accessed", "GB accessed", ".2f"),
    ("bytes_per_image", "bytes/image sent", ",d"),
    ("compilations", "compiled", "d"),
)


def _print(table: dict) -> None:
    print(f"\n{table['tower']}, {table['dtype']}, batch {table['batch']}"
          + (f"; large matrix product: {table['matmul_gflops_per_second']:.1f} GFLOP/s"
             if "matmul_gflops_per_second" in table else ""))  # fmt: skip
    lines = [[title for _, title, _ in _COLUMNS]]
    for row in table["rows"]:
        cells = [(row.get(key), form) for key, _, form in _COLUMNS]
        lines.append(["-" if v is None else format(v, form) for v, form in cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        first, *rest = (cell.rjust(w) for cell, w in zip(line, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *rest]), flush=True)


_FIRST_STEP = """
import sys
from vprompt_jax import cli; cli.set_up_process()
from vprompt_jax.config import default_config
from vprompt_jax.train import fit
config = default_config()
config.optim.epochs, config.optim.batch_size, config.mask.width = 1, 128, 16
config.prompt.learning_rate = config.mask.learning_rate = 0.1
print(fit(config, sys.argv[1])["seconds_to_first_step"])
"""


def _first_steps() -> dict[str, float]:
    """Seconds from process start to the end of AdaViPro's first step on the embedded digits."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("cold", "warm"):
            env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
            done = subprocess.run(
                [sys.executable, "-c", _FIRST_STEP, f"{folder}/{kind}"],
                env=env, capture_output=True, text=True, check=True,
            )  # fmt: skip
            found[kind] = float(done.stdout.split()[-1])
            print(f"first step of AdaViPro on the digits, {kind} cache: {found[kind]:.1f} s")
    return found


if __name__ == "__main__":
    main()
