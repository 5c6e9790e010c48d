"""The benchmark's tables: measured costs, predictions for other machines, and largest batches."""

import argparse
import dataclasses
import functools
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vprompt_jax.benchmark import compiled, machines, measure, torch_side
from vprompt_jax.clip.checkpoints.drawn import random_weights
from vprompt_jax.clip.checkpoints.load import load
from vprompt_jax.clip.model import CLIP
from vprompt_jax.config import default_config, resolve
from vprompt_jax.config.settings import assign
from vprompt_jax.methods import METHODS, registry
from vprompt_jax.process.errors import UserError


@dataclasses.dataclass(frozen=True)
class Tower:
    """A frozen CLIP to measure methods on."""

    name: str
    dtype: str
    clip: CLIP
    variables: dict[str, Any]


def load_tower(args: argparse.Namespace, name: str, dtype: str) -> Tower:
    """Loads a checkpoint, or with --random draws a variant's weights.

    Raises:
      UserError: if there is none of that name.
    """
    get = random_weights if args.random else load
    return Tower(name, dtype, *get(name, dtype=jnp.dtype(dtype)))


def _compiled(
    args: argparse.Namespace, tower: Tower, batch: int, run_steps: bool
) -> list[compiled.CompiledStep]:
    """Compiles a row for each method, rematerialisation and, with --positions, position.

    Raises:
      UserError: if a method that was asked for by name does not fit the tower.
    """
    rows = []
    with tempfile.TemporaryDirectory() as workdir:
        for name, config in _configs(args, tower, batch):
            try:
                rows.append(
                    compiled.compile_step(
                        config, name, tower.clip, tower.variables, args.classes, Path(workdir),
                        run_steps=run_steps,
                    )
                )  # fmt: skip
            except UserError as error:
                if args.method:
                    raise
                print(f"left out: {name}: {error}", file=sys.stderr)
            print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return rows


def trained_methods() -> list[str]:
    """Names of the methods that train parameters."""
    config = default_config()
    names = []
    for name in METHODS:
        config.method.name = name
        if resolve(config).trained:
            names.append(name)
    return names


def _configs(args: argparse.Namespace, tower: Tower, batch: int) -> Iterator[tuple[str, Any]]:
    """Yields the configs to measure, each with its name in the table."""
    key = registry.position_key()
    for method, remat in itertools.product(args.method or trained_methods(), args.remat):
        config = default_config()
        config.method.name = method
        config.model.dtype, config.model.remat = tower.dtype, remat
        config.optim.batch_size = config.eval.batch_size = batch
        for setting in args.set:
            assign(config, setting)
        name = method if remat == "none" else f"{method}, remat {remat}"
        if key not in METHODS[method].parts:
            yield name, config
            continue
        for position in range(tower.clip.config.depth + 1) if args.positions else [0]:
            config.update_from_flattened_dict({key: (position,)})
            yield f"{name} at {position}", config


_MEASURED = (
    ("method", "method", "s"),
    ("trained_parameters", "trained", ",d"),
    ("images_per_second", "images/s", ".1f"),
    ("speed_over_vp", "x VP", ",.2f"),
    ("speed_over_vp_by_flops", "by FLOPs", ",.2f"),
    ("gflop_per_image", "GFLOP/image", ".3f"),
    ("flops_over_floor", "x floor", ".3f"),
    ("share_of_matmul_rate", "of matmul rate", ".2f"),
    ("temp_mib", "temp MiB", ",.0f"),
    ("gbyte_accessed", "GB accessed", ".2f"),
    ("bytes_per_image", "bytes/image sent", ",d"),
    ("all_reduced_bytes", "all-reduced", ",d"),
    ("compilations", "compiled", "d"),
)


def measured(args: argparse.Namespace, tower: Tower, batch: int) -> dict[str, Any]:
    """Prints and returns the cost of each method's step here; memory is per device."""
    counts = counts_of_cpu(args, tower) if jax.default_backend() == "gpu" else None
    steps = _compiled(args, tower, batch, run_steps=not args.no_timing)
    matmul, matmul_flops = measure.matmul_program(tower.dtype)
    times: list[float] = []
    in_torch = {}
    if not args.no_timing:
        for way in torch_side.ways() if args.torch else []:
            in_torch[way] = torch_side.make_step(
                tower.clip.config, batch, args.classes, way, tower.dtype, args.precision
            )
        programs = [matmul, *(row.run_step for row in steps), *in_torch.values()]
        times = measure.seconds(programs, args.repeats)
    result: dict[str, Any] = {"tower": tower.name, "dtype": tower.dtype, "batch": batch, "rows": []}
    rate = matmul_flops / times[0] if times else None
    if rate:
        result["matmul_gflops_per_second"] = rate / 1e9
    for i, row in enumerate(steps):
        figures: dict[str, Any] = {
            "method": row.name,
            "trained_parameters": row.parameters,
            "gflop_per_image": _in_billions(row.flops_per_image),
            "flops_over_floor": row.flops_over_floor,
            "temp_mib": row.cost.temp_bytes / 2**20,
            "gbyte_accessed": row.cost.bytes / 1e9,
            "bytes_per_image": row.bytes_per_image,
            "all_reduced_bytes": row.cost.reduced_bytes,
            "compilations": row.compilations,
        }
        if counts:
            figures |= {key: counts[i][key] for key in ("gflop_per_image", "flops_over_floor")}
        if rate:
            figures["images_per_second"] = batch / times[i + 1]
            per_device = figures["images_per_second"] / jax.device_count()
            flops_per_second = 1e9 * figures["gflop_per_image"] * per_device
            figures["share_of_matmul_rate"] = flops_per_second / rate
        result["rows"].append(figures)
    for (way, step), taken in zip(in_torch.items(), times[len(steps) + 1 :], strict=True):
        flops = torch_side.count_flops(step) / batch if way != "compiled" else None
        result["rows"].append({
            "method": f"torch, {way}",
            "images_per_second": batch / taken,
            "gflop_per_image": _in_billions(flops),
        })  # fmt: skip
    compare_with_vp(result["rows"])
    title = f"{tower.name}, {tower.dtype}, batch {batch}"
    if rate:
        title += f"; large matrix product: {rate / 1e9:.1f} GFLOP/s"
    print_table(title, _MEASURED, result["rows"])
    return result


def _in_billions(count: float | None) -> float | None:
    return None if count is None else count / 1e9


@functools.cache
def _counted(command: tuple[str, ...]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.json"
        subprocess.run(
            [sys.executable, "-m", "vprompt_jax.benchmark", *command, "--json", str(path)],
            env={**os.environ, "JAX_PLATFORMS": "cpu"}, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return json.loads(path.read_text())["tables"][0]["rows"]


def counts_of_cpu(args: argparse.Namespace, tower: Tower) -> list[dict[str, Any]]:
    """Counts this table's rows with a CPU's compiler, in a process of its own.

    FLOPs per image depend neither on the batch nor on the dtype, so one count serves all tables of
    a tower.
    """
    command = ["--no_timing", "--tower", tower.name, "--batch", "16"]
    command += ["--classes", str(args.classes), "--remat", *args.remat]
    command += ["--method", *args.method] if args.method else []
    command += ["--random"] * args.random + ["--positions"] * args.positions
    return _counted(tuple(command))


def compare_with_vp(figures: list[dict[str, Any]]) -> None:
    """Adds to each row its speed relative to VP, as measured and as FLOPs alone would give it."""
    vp = next((row for row in figures if row["method"] == "vp"), None)
    if vp is None:
        return
    for row in figures:
        if row["gflop_per_image"]:
            row["speed_over_vp_by_flops"] = vp["gflop_per_image"] / row["gflop_per_image"]
        if "images_per_second" in row:
            row["speed_over_vp"] = row["images_per_second"] / vp["images_per_second"]


_PREDICTED = (
    ("method", "method", "s"),
    ("machine", "machine", "s"),
    ("images_per_device", "images/device", "d"),
    ("arithmetic_ms", "arithmetic ms", ".2f"),
    ("memory_ms", "memory ms", ".2f"),
    ("exchange_ms", "exchange ms", ".3f"),
    ("epoch_seconds_arithmetic", "epoch s, arithmetic alone", ".1f"),
    ("epoch_seconds", "epoch s", ".1f"),
)


def predicted(args: argparse.Namespace, tower: Tower, batch: int) -> dict[str, Any]:
    """Prints and returns the predicted cost of an epoch of `args.predict` images elsewhere.

    Raises:
      UserError: on a GPU, whose compiler does not count FLOPs.
    """
    if jax.default_backend() == "gpu":
        raise UserError("--predict needs the counts of a CPU's compiler: set JAX_PLATFORMS=cpu")
    steps = math.ceil(args.predict / batch)
    result: dict[str, Any] = {"tower": tower.name, "dtype": tower.dtype, "batch": batch, "rows": []}
    compiled = {}
    for machine in machines.MACHINES:
        images_per_device = math.ceil(batch / machine.devices)
        if images_per_device not in compiled:
            # Each local device gets as many images as one of the machine's devices would.
            rows = _compiled(args, tower, images_per_device * jax.device_count(), run_steps=False)
            # Only the counts are kept, since the rows hold the weights.
            compiled[images_per_device] = [(row.name, row.cost, row.parameters) for row in rows]
        for name, cost, parameters in compiled[images_per_device]:
            prediction = machines.predict(cost, machine, tower.dtype, 4 * parameters)
            result["rows"].append({
                "method": name,
                "machine": machine.name,
                "images_per_device": images_per_device,
                "arithmetic_ms": 1e3 * prediction.arithmetic,
                "memory_ms": 1e3 * prediction.memory,
                "exchange_ms": 1e3 * prediction.exchange,
                "epoch_seconds_arithmetic": steps * prediction.arithmetic,
                "epoch_seconds": steps * prediction.step,
            })  # fmt: skip
    title = f"{tower.name}, {tower.dtype}: an epoch of {args.predict:,} images, batch {batch}"
    print_table(title, _PREDICTED, result["rows"])
    return result


_FITTING = (
    ("method", "method", "s"),
    ("largest_batch", "largest batch", "d"),
    ("memory_gib", "GiB", ".2f"),
    ("gflop_per_image", "GFLOP/image", ".1f"),
)


def fitting(args: argparse.Namespace, tower: Tower, batch: int) -> dict[str, Any]:
    """Prints and returns the largest batch that fits in `args.fit` GiB, from `batch` upwards."""
    limit = int(args.fit * 2**30)
    counts: dict[int, list[tuple[str, int, float | None]]] = {}

    def at(size: int) -> list[tuple[str, int, float | None]]:
        """(name, bytes, FLOPs per image) of each row, without the rows, which hold the weights."""
        if size not in counts:
            rows = _compiled(args, tower, size, run_steps=False)
            counts[size] = [(r.name, r.cost.memory_bytes, r.flops_per_image) for r in rows]
        return counts[size]

    def memory_of(number: int, size: int) -> int:
        return at(size)[number][1]

    result: dict[str, Any] = {
        "tower": tower.name,
        "dtype": tower.dtype,
        "gib": args.fit,
        "rows": [],
    }
    for i in range(len(at(batch))):
        size = machines.largest_batch(functools.partial(memory_of, i), batch, limit)
        name, memory, flops = at(size or batch)[i]
        result["rows"].append({
            "method": name,
            "largest_batch": size,
            "memory_gib": memory / 2**30,
            "gflop_per_image": _in_billions(flops),
        })  # fmt: skip
    print_table(f"{tower.name}, {tower.dtype}: in {args.fit:g} GiB", _FITTING, result["rows"])
    return result


def print_table(
    title: str, columns: Sequence[tuple[str, str, str]], table: list[dict[str, Any]]
) -> None:
    """Prints rows in aligned columns of (key, heading, format); "-" where a row has no value."""
    print(f"\n{title}")
    lines = [[heading for _, heading, _ in columns]]
    for row in table:
        cells = [(row.get(key), form) for key, _, form in columns]
        lines.append(["-" if v is None else format(v, form) for v, form in cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        first, *rest = (cell.rjust(w) for cell, w in zip(line, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *rest]), flush=True)
