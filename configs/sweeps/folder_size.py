"""Which method suits how many photographs: `vprompt train FOLDER` chooses by what this shows.

    python launch.py --config configs/sweeps/folder_size.py:CIFAR10

CIFAR10 is CIFAR-10 as a folder of photographs, or as the .npz that `vprompt_jax.data.save` makes of
it. A linear layer that is solved exactly stands beside AP and LoRA with a linear layer, in the
schedule of `vprompt train`.
"""

from configs.sweeps import common
from vprompt_jax.config import default_config, grid
from vprompt_jax.launching import photographs

_SIZES = (4, 16, 64, 256, 1024, 4096)  # photographs per class
_CLASSES = 10
_METHODS = {
    "linear": {"method.name": "linear", "head.solver": "lbfgs", "optim.epochs": 1},
    "ap": {"method.name": "ap", "head.kind": "linear"},
    "lora": {"method.name": "lora", "head.kind": "linear"},
}


def get_config(cifar=""):
    if not cifar:
        raise FileNotFoundError("say where CIFAR-10 is: folder_size.py:FOLDER, or :FILE.npz")
    c = default_config()
    c.name = "folder_size"
    c.model.checkpoint = "mini-clip-vit"  # LoRA needs a transformer
    c.protocol = "paper"  # nothing is chosen by these runs
    c.update_from_flattened_dict(common.images_at(cifar))
    c.optim.batch_size, c.optim.warmup_fraction = photographs.BATCH, photographs.WARMUP
    runs = []
    for size in _SIZES:
        epochs = photographs.epochs(_CLASSES * size)
        for name, keys in _METHODS.items():
            for run, values in grid({"data.few_shot": (size,)}, common.SEEDS):
                overrides = {"optim.epochs": epochs} | keys | dict(values)
                runs.append((f"{name}-{run}", tuple(overrides.items())))
    c.sweep = tuple(runs)
    return c
