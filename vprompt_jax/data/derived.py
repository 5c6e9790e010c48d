"""Labels that are computed from an example's other fields; a row names the function.

The definitions are VTAB's (arXiv 1910.04867, appendix A, and its code).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Example = Mapping[str, Any]


def _interval(value: float, edges: tuple[float, ...]) -> int:
    """Index of the last interval whose lower edge lies strictly below the value."""
    return int(np.flatnonzero(np.array(edges) < value).max())


def clevr_count(example: Example) -> int:
    """The number of objects, 3 to 10, as labels 0 to 7."""
    return len(example["objects"]["size"]) - 3


def clevr_distance(example: Example) -> int:
    """The depth of the nearest object in six steps."""
    nearest = np.min(np.asarray(example["objects"]["pixel_coords"])[:, 2])
    return _interval(nearest, (0.0, 8.0, 8.5, 9.0, 9.5, 10.0))


def kitti_distance(example: Example) -> int:
    """The distance of the nearest car, van or truck: below 8 m, below 20 m, farther, or none."""
    kinds = np.asarray(example["objects"]["type"])
    depths = np.asarray(example["objects"]["location"]).reshape(-1, 3)[:, 2]
    vehicles = depths[kinds < 3]
    return _interval(vehicles.min() if len(vehicles) else 1000.0, (-100.0, 8.0, 20.0, 999.0))


def dsprites_x(example: Example) -> int:
    """The 32 horizontal positions, two to a label."""
    return int(example["label_x_position"]) // 2


def dsprites_orientation(example: Example) -> int:
    """The 40 orientations, grouped into 16 labels."""
    return int(example["label_orientation"] // 2.5)


LABELS: dict[str, Callable[[Example], int]] = {
    f.__name__: f
    for f in (clevr_count, clevr_distance, kitti_distance, dsprites_x, dsprites_orientation)
}
