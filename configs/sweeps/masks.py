"""When masks matter: AdaViPro beside VP over sets, sizes and starts, five seeds.

    python launch.py --config configs/sweeps/masks.py                   (digits alone)
    python launch.py --config configs/sweeps/masks.py:CIFAR10           (and CIFAR-10)

CIFAR10 is CIFAR-10 as a folder of photographs (train/CLASS, test/CLASS), or as the .npz that
`vprompt_jax.data.save` makes of it, which loads faster. The report's table of differences shows
what AdaViPro gains on VP and on zero-shot, and what is lost when images get each other's masks.
"""

from configs.sweeps import common
from vprompt_jax.config import grid

# Name, images per class (none: all, 51,744), epochs (480 to 810 steps), and the rates of prompt and
# mask by the prompt's start. The prompt's is VP's best of 0.5 and 1 from zero, of 1 and 10 from
# N(0, 1); the mask's was chosen of 0.1, 0.3 and 1 (one seed, size 4, 8 or 16).
_SETS = (
    ("digits", None, 1, {"zeros": (0.5, 1.0), "normal": (1.0, 0.1)}),
    ("cifar10", 102, 30, {"zeros": (1.0, 1.0), "normal": (10.0, 0.3)}),
    ("cifar10", 1000, 3, {"zeros": (1.0, 1.0), "normal": (10.0, 0.3)}),
)
_COMPARED = {"prompt.size": (4, 8, 16), "method.name": ("vp", "adavipro")}


def get_config(cifar=""):
    c = common.base("masks", "mini")
    runs = []
    for name, images, epochs, rates in _SETS if cifar else _SETS[:1]:
        data = {"optim.epochs": epochs}
        if name == "cifar10":
            data |= common.images_at(cifar) | {"data.few_shot": images, "data.val_shots": 100}
        for start, (rate, mask_rate) in rates.items():
            prompt = {"prompt.init": start, "prompt.learning_rate": rate}
            for run, values in grid(_COMPARED, common.PAIRED_SEEDS):
                keys = data | prompt | dict(values)
                if keys["method.name"] == "adavipro":
                    keys |= {"mask.learning_rate": mask_rate}
                    keys |= common.FROM_NOISE if start == "normal" else {}
                runs.append((f"{name}_{images or 'all'}-{start}-{run}", tuple(keys.items())))
    c.sweep = tuple(runs)
    return c
