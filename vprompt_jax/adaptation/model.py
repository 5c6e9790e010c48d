"""PromptedCLIP: the one path from images to class logits."""

import contextlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.adapters import tuning
from vprompt_jax.clip import sites
from vprompt_jax.clip.model import CLIP, cosine_logits
from vprompt_jax.clip.preprocess import preprocess_batch
from vprompt_jax.heads.linear import LinearHead
from vprompt_jax.heads.mapping import mapped_logits
from vprompt_jax.prompts import adavipro
from vprompt_jax.prompts.vp import VisualPrompt

HEADS = ("text", "linear", "mapping")
_INSIDE = ("vpt", "ap", "adapter", "lora", "ssf")  # in the order in which they act at one site


class PromptedCLIP(nn.Module):
    """A frozen CLIP with what is trained: a prompt (what), a mask (where), adapters and a head.

    Its variables are those of its parts: "params" under the parts' names (trained) and under "clip"
    (frozen; only the image tower, `logit_scale` and a supervised tower's classifier are needed),
    "batch_stats" of a ResNet, and "constants": the classes' "text_features" [C, E] for the text
    head, "label_map" int32 [C] for the mapping head.

    Attributes:
      clip: the CLIP whose weights stay as they are, but for those of the part "tune".
      prompt: what is added to the normalised image, or None.
      mask: decides per region where it is added, or None for everywhere.
      vpt, ap, adapter, lora, ssf: what acts inside the tower, in this order; each may be None.
      head: "text" for the cosine to the classes' texts, "mapping" for a supervised tower's own
        classes, or a linear head.
      entry: the highest position (0..L) below which nothing is trained, or "pixels".
      start: the position whose activations are given in place of images; None for images.
    """

    clip: CLIP
    prompt: VisualPrompt | None = None
    mask: adavipro.MaskGenerator | None = None
    vpt: sites.Adapter | None = None
    ap: sites.Adapter | None = None
    adapter: sites.Adapter | None = None
    lora: sites.Adapter | None = None
    ssf: sites.Adapter | None = None
    head: LinearHead | str = "text"
    entry: int | str = sites.PIXELS
    start: int | None = None

    @property
    def resolution(self) -> int:
        return self.clip.config.image_resolution

    @property
    def adapters(self) -> list[sites.Adapter]:
        """The adapters there are, in the order in which they act at one site."""
        every = (getattr(self, name) for name in _INSIDE)
        return [adapter for adapter in every if adapter is not None]

    def __call__(
        self,
        images: jax.Array,
        *,
        place_keys: jax.Array,
        noise_keys: jax.Array | None = None,
        temperature: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Class logits of images.

        Args:
          images: uint8 [B, h, w, 3], any size, resized and normalised here; or activations at
            position `start`.
          place_keys: keys [1] or [B] for a random patch's place.
          noise_keys: keys [B] for the Gumbel noise of training; None for inference.
          temperature: of the relaxation; needed with `noise_keys`.

        Returns:
          Logits float32 [B, C] and what `prompted` says beside the pixels, with the source
          classes "source" int32 [B] for the mapping head.
        """
        x, out = images, {}
        if self.start is None:
            x, out = self.prompted(self.pixels(images), place_keys, noise_keys, temperature)
        features = self.features(x, start=self.start)
        if isinstance(self.head, LinearHead):
            return self.head(features), out
        if self.head == "mapping":
            logits = self.clip.source_logits(features)
            out = {**out, "source": jnp.argmax(logits, -1)}
            return mapped_logits(logits, self.get_variable("constants", "label_map")), out
        texts = self.get_variable("constants", "text_features")
        return cosine_logits(features, texts, self.clip.logit_scale), out

    def pixels(self, images: jax.Array) -> jax.Array:
        """uint8 [B, h, w, 3] of any size -> the tower's input, normalised float32 [B, R, R, 3]."""
        c = self.clip.config
        return preprocess_batch(images, c.image_resolution, c.mean, c.std)

    def prompted(
        self,
        x: jax.Array,
        place_keys: jax.Array,
        noise_keys: jax.Array | None = None,
        temperature: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """x' = x + P * m (AdaViPro, eq. of section 3; m = 1 without a mask).

        Returns:
          Normalised, prompted pixels float32 [B, R, R, 3]; with a mask also `marks` [B, g, g] and
          `active` bool [1 or B, g, g], the regions in which the prompt has parameters.
        """
        if self.prompt is None:
            return x, {}
        pixels, support = self.prompt(place_keys)
        if self.mask is None:
            return x + pixels, {}
        logits = self.mask(x)
        if noise_keys is None:
            marks = adavipro.best_marks(logits)
        else:
            noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(noise_keys)
            marks = adavipro.sampled_marks(logits, noise, temperature)
        active = adavipro.regions_with(support, self.mask.region)
        x = x + pixels * adavipro.dilate(marks, self.mask.region)
        return x, {"marks": marks, "active": active}

    def features(self, x: jax.Array, *, start: int | None = None) -> jax.Array:
        """Image features [B, E] with the adapters acting.

        Args:
          x: normalised pixels [B, R, R, 3], or the activation at `start`.
        """
        tap, interceptor = sites.acting(self.adapters)
        if start is None:
            x = tap(sites.PIXELS, x)
        with nn.intercept_methods(interceptor) if self.adapters else contextlib.nullcontext():
            return self.clip.encode_image(x, start=start, tap=tap)

    def activation(self, images: jax.Array, position: int) -> jax.Array:
        """The frozen tower's activation at a position, of uint8 images [B, h, w, 3]."""
        return self.clip.encode_image(self.pixels(images), stop=position)

    @property
    def trained_parts(self) -> list[str]:
        """Names of the parts beside the tower's own weights that gradients train."""
        names = [n for n in ("prompt", "mask", *_INSIDE) if getattr(self, n) is not None]
        return [*names, "head"] if isinstance(self.head, LinearHead) else names

    def _touch_trained(self):
        """Creates the trained parts' parameters and nothing of the CLIP's."""
        side = self.resolution
        if self.prompt is not None:
            self.prompt(jax.random.split(jax.random.key(0), 1))
        if self.mask is not None:
            self.mask(jnp.zeros((1, side, side, 3)))
        for adapter in self.adapters:
            adapter.create()
        if isinstance(self.head, LinearHead):
            self.head(jnp.zeros((1, self.clip.config.embed_dim)))

    def init_trained(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters of the trained parts: {"prompt": ..., "mask": ..., "head": ...}."""
        return self.init(key, method="_touch_trained").get("params", {})


def variables_of(params: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict[str, Any]:
    """All variables of a `PromptedCLIP`: the trained ones beside, or in place of, the frozen ones.

    Args:
      params: parameters by part; those of "tune" replace the tower's of the same names, "mapping"
        holds the mapping head's assignment.
      frozen: the frozen variables.
    """
    parts = dict(params)
    clip = frozen["params"]["clip"]
    if tuned := parts.pop("tune", None):
        clip = {**clip, "visual": tuning.replaced(clip["visual"], tuned)}
    constants = {**frozen["constants"], **parts.pop("mapping", {})}
    return {**frozen, "params": {"clip": clip, **parts}, "constants": constants}
