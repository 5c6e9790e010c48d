"""TP, VP, AdaViPro and linear probe on the embedded digits, over prompt sizes, starts and seeds.

    python launch.py --config configs/quickstart_compare.py --workdir runs/compare

Writes a table with paired differences, accuracy over prompt size (AdaViPro's figure 2) and prompted
images with their masks (figure 4) to the workdir; stopped, it goes on where it was. Change what all
runs share by overrides, as with any config (--config.optim.epochs=2).
"""

import itertools

from configs import quickstart

SIZES = (4, 8, 16)  # pixels; 16 covers the image of 32
SEEDS = (0, 1, 2, 3, 4)
# Learning rates of prompt and generator by the prompt's start (docs/mini.md).
RATES = {"zeros": (0.3, 0.3), "normal": (2.0, 0.05)}


def get_config():
    c = quickstart.get_config()
    c.name = "quickstart_compare"
    c.eval.every_epochs = c.optim.epochs  # only the end counts here
    runs = [("tp", (("method.name", "tp"),))]
    for seed in SEEDS:
        method = ("method.name", "linear"), ("seed", seed)
        runs.append((f"linear-s{seed}", method))
        for init, size, name in itertools.product(RATES, SIZES, ("vp", "adavipro")):
            keys = {
                "method.name": name,
                "prompt.init": init,
                "prompt.size": size,
                "prompt.learning_rate": RATES[init][0],
                "mask.learning_rate": RATES[init][1],
                "seed": seed,
            }
            runs.append((f"{name}-{init}-p{size}-s{seed}", tuple(keys.items())))
    c.sweep = tuple(runs)
    return c
