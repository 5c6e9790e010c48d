"""FGVC: five fine-grained data sets, rate and weight decay chosen on a tenth of train.

python launch.py --config configs/sweeps/fgvc.py            (ViT-B/16 of ImageNet-21k)
python launch.py --config configs/sweeps/fgvc.py:mini       (the embedded ViT)

The protocol of VPT (arXiv 2203.12119; `tune_fgvc.py` of its code): 40 trials for each data set and
method. Ours: the tenth is cut by hash, and the best trial's values are trained with five seeds. The
mini variant has digits and letters, eighteen images of each class, and six trials.
"""

from configs.sweeps import common


def get_config(variant="paper"):
    keys = {"data.name": common.FGVC}
    return common.as_vpt("fgvc", variant, keys, {"data.few_shot": 18})
