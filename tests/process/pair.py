"""One of two processes that agree on things; each writes what it learned, as JSON.

python -m tests.process.pair FOLDER
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jax

from vprompt_jax.process import cluster
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import cache, workdir


def error_of(function) -> str:
    try:
        function()
    except UserError as error:
        return str(error)
    return ""


def enter(folder: Path) -> None:
    with workdir.in_use(folder):
        pass


def main(folder: Path) -> None:
    cluster.join()
    i = jax.process_index()

    def fail():
        raise UserError(f"process {i} cannot")

    learned = {
        "gather": cluster.gather({"i": i, "text": "ä" * (1 + 1000 * i)}),
        "broadcast": cluster.broadcast(["first", "second"][i]),
        "by_first": cluster.by_first(lambda: i),
        "failed": error_of(lambda: cluster.by_first(fail)),
        "same": error_of(lambda: cluster.agree("thing", {"a": 1})),
        "differs": error_of(lambda: cluster.agree("thing", i)),
    }
    with workdir.in_use(folder / "run"):
        learned["lock"] = (folder / "run" / ".lock").is_file()
        cluster.gather(None)
    learned["removed"] = cluster.by_first(lambda: not (folder / "run").exists())
    workdir._VISIBLE_WITHIN = 1.0
    learned["own"] = error_of(lambda: enter(folder / f"own{i}"))
    # This machine has room for two caches, as far as process 0 can see, but process 1 has not.
    cache.psutil = SimpleNamespace(
        virtual_memory=lambda: SimpleNamespace(available=[10**9, 10**6][i])
    )
    learned["lacking"] = cache._lacking(10**6, folder, on_disk=False)
    cache.psutil = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=10**9))
    learned["fits"] = cache._lacking(200 * 10**6, folder, on_disk=False)
    learned["together"] = cache._lacking(300 * 10**6, folder, on_disk=False)
    (folder / f"learned{i}.json").write_text(json.dumps(learned))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
