"""What the sweeps share: the paper's base and its laptop-sized stand-in."""

from configs import adaviprompt_cifar10, quickstart

# AdaViPro's nine datasets, by TFDS name.
DATASETS = (
    "cifar10",
    "cifar100",
    "dtd",
    "food101",
    "sun397",
    "oxford_flowers102",
    "ucf101",
    "eurosat",
    "oxford_iiit_pet",
)
SEEDS = (0, 1, 2)


def base(name: str, variant: str):
    """The config that a sweep's runs vary.

    Args:
      name: of the sweep.
      variant: "paper": CLIP ViT-B/32 and AdaViPro's settings on CIFAR-10 (a sweep names other
        datasets itself). "mini": the embedded CLIP and digits, a few epochs.

    Raises:
      ValueError: if it is neither.
    """
    if variant == "paper":
        c = adaviprompt_cifar10.get_config()
    elif variant == "mini":
        c = quickstart.get_config()
        c.optim.epochs = 3
        c.eval.every_epochs = 1
        c.log.every_steps = 10
    else:
        raise ValueError(f"{name}.py:{variant}: the variants are paper and mini")
    c.name = f"{name}_{variant}"
    return c
