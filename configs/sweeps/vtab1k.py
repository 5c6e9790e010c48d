"""VTAB-1k: rate and weight decay chosen on val's 200 images, then trained on all 1,000, then test.

python launch.py --config configs/sweeps/vtab1k.py          (ViT-B/16 of ImageNet-21k, 19 data sets)
python launch.py --config configs/sweeps/vtab1k.py:mini     (the embedded ViT)

The protocol of VPT (arXiv 2203.12119; `tune_vtab.py` of its code): 40 trials for each data set and
method, then five seeds. The mini variant has digits and letters, forty images of each class, and
six trials.
"""

from configs.sweeps import common


def get_config(variant="paper"):
    keys = {"data.split": ("vtab",), "data.name": common.VTAB}
    c = common.as_vpt("vtab1k", variant, keys, {"data.few_shot": 40})
    c.search.retrain = True
    return c
