"""What transformers' configs of image processors can say, and what the towers here make of it."""

import dataclasses
from typing import Any

from vprompt_jax.clip.checkpoints.keys import Keys, names, side_of
from vprompt_jax.clip.checkpoints.tower_fields import pixel_statistics
from vprompt_jax.clip.config import Fields
from vprompt_jax.process.errors import UserError

# An image processor of CLIP decides what the tower sees. Those of classifiers differ in ways that
# docs/checkpoints.md states (their images are resized as CLIP's are), but for the statistics.
_OUTSIDE = names(
    "image_processor_type feature_extractor_type processor_class do_convert_rgb default_to_square "
    "data_format input_data_format device return_tensors disable_grouping image_seq_length "
    "auto_map _valid_processor_keys use_fast crop_pct"
)
PROCESSOR = Keys(
    "preprocessor_config.json",
    read={
        "image_mean": None,
        "image_std": None,
        "do_center_crop": None,
        "size": None,
        "crop_size": None,
        "resample": None,
    },
    must={
        "do_resize": (True, None),
        "do_normalize": (True, None),
        "do_rescale": (True, None),
        "rescale_factor": (1 / 255, None),
        "do_pad": (False, None),
        "pad_size": (None,),
    },
    harmless=_OUTSIDE,
)


def pixel_fields(config: dict[str, Any], file: str, *, decides: bool, crops: bool = True) -> Fields:
    """The fields that an image processor's config tells.

    Args:
      config: the processor's; {} where there is none.
      file: the name of the file it stands in.
      decides: whether it tells how images are resized, too, as CLIP's and SigLIP's do.
      crops: whether it cuts out the centre where it does not say so, which is the library's default
        for CLIP.

    Returns:
      "mean", "std" and, if it `decides` so, "resize".

    Raises:
      UserError: if it says something that is not supported.
    """
    values = dataclasses.replace(PROCESSOR, where=file).values(config)
    fields = pixel_statistics(values, "image_mean", "image_std")
    if not decides or not config:
        return fields
    size, crop = values["size"], values["crop_size"]
    cropped = crops if values["do_center_crop"] is None else values["do_center_crop"]
    squashed = isinstance(size, dict) and {"height", "width"} <= size.keys() and not cropped
    if values["resample"] not in (3, None) and not (squashed and values["resample"] == 2):
        raise UserError(
            f"{file} asks for resample={values['resample']}, which is not supported: images are "
            "resized by bicubic interpolation (3), or squashed by bilinear (2)"
        )
    if squashed:
        side_of([size["height"], size["width"]], f"{file}: size")
        return fields | {"resize": "squash" if values["resample"] != 2 else "squash_bilinear"}
    if not cropped:
        raise UserError(f"{file} says do_center_crop=False: the tower takes square images only")
    short = size.get("shortest_edge") if isinstance(size, dict) else size
    if isinstance(size, dict) and short is None and "height" in size:
        short = side_of([size["height"], size.get("width")], f"{file}: size")
    side = [crop.get("height"), crop.get("width")] if isinstance(crop, dict) else crop
    side = side_of(side, f"{file}: crop_size")
    if short is not None and side is not None and short != side:
        raise UserError(
            f"{file} resizes to size={short} and crops crop_size={side}, which is not supported: "
            "both must be the tower's resolution"
        )
    return fields
