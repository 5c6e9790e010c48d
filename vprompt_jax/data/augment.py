"""Random flips, crops and other changes, drawn per example inside the compiled step."""

import jax
import jax.numpy as jnp

from vprompt_jax.data.trivial import rand, trivial
from vprompt_jax.schema.sections import Augmentation

# As in torchvision's RandomResizedCrop, except that no crop is below half of the image, lest it
# lose a small object.
_AREA = (0.5, 1.0)
_ASPECT = (3 / 4, 4 / 3)


def augment(images: jax.Array, keys: jax.Array, kind: Augmentation) -> jax.Array:
    """Augments training images at the size at which they reach the device.

    Args:
      images: uint8 [B, h, w, 3].
      keys: keys [B], one per example, so that an example's crop does not depend on the rest of the
        batch.
      kind: "none"; "flip" to mirror half of the images left to right; "flip_crop" to crop them,
        too, to 50 to 100 % of the area and 3/4 to 4/3 of the aspect, and to resize them back;
        "trivial" or "rand", one or two random operations each (`data.trivial`).

    Returns:
      float32 [B, h, w, 3], whole grey levels 0..255; the images themselves for "none".
    """
    if kind == "none":
        return images
    if kind in ("trivial", "rand"):
        return jax.vmap(trivial if kind == "trivial" else rand)(images, keys)
    flip_keys, crop_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    x = images.astype(jnp.float32)
    flip = jax.vmap(jax.random.bernoulli)(flip_keys)
    x = jnp.where(flip[:, None, None, None], x[:, :, ::-1], x)
    if kind == "flip":
        return x
    boxes = jax.vmap(crop_box)(crop_keys)
    return jnp.clip(jnp.round(jax.vmap(resized_crop)(x, boxes)), 0.0, 255.0)


def crop_box(key: jax.Array) -> jax.Array:
    """Draws a crop (top, left, height, width) in shares of the image: float32 [4].

    The area and the logarithm of the aspect are uniform. Sides longer than the image's are cut to
    them, and then the place is uniform.
    """
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    area = jax.random.uniform(area_key, minval=_AREA[0], maxval=_AREA[1])
    log_aspect = jax.random.uniform(
        aspect_key, minval=jnp.log(_ASPECT[0]), maxval=jnp.log(_ASPECT[1])
    )
    aspect = jnp.exp(log_aspect)
    size = jnp.minimum(jnp.stack([jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)]), 1.0)
    start = jax.random.uniform(place_key, (2,)) * (1.0 - size)
    return jnp.concatenate([start, size])


def resized_crop(image: jax.Array, box: jax.Array) -> jax.Array:
    """Resizes a box (in shares, as from `crop_box`) to the image's own size, bilinearly.

    Args:
      image: float32 [h, w, 3].
      box: float32 [4].
    """
    sides = jnp.array(image.shape[:2], jnp.float32)
    scale = 1.0 / box[2:]
    return jax.image.scale_and_translate(
        image, image.shape, (0, 1), scale, -box[:2] * sides * scale, method="linear"
    )
