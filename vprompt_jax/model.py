"""PromptedCLIP: the one path from images to class logits."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.model import CLIP
from vprompt_jax.clip.preprocess import preprocess_batch
from vprompt_jax.heads.linear import LinearHead
from vprompt_jax.heads.text import cosine_logits
from vprompt_jax.prompts import adavipro
from vprompt_jax.prompts.vp import VisualPrompt

TRAINED_PARTS = ("prompt", "mask", "head")


class PromptedCLIP(nn.Module):
    """A frozen CLIP with a prompt (what), a mask (where) and a head.

    Its variables are those of its parts: "params" under "prompt", "mask", "head" (trained) and
    "clip" (frozen; only the image tower and `logit_scale` are needed), "batch_stats" of a ResNet,
    and "constants", with the classes' "text_features" [C, E] for the text head.

    Attributes:
      clip: the CLIP whose weights stay as they are.
      prompt: what is added to the normalised image, or None.
      mask: decides per region where it is added, or None for everywhere.
      head: a linear head, or None for the cosine to the classes' texts.
    """

    clip: CLIP
    prompt: VisualPrompt | None = None
    mask: adavipro.MaskGenerator | None = None
    head: LinearHead | None = None

    @property
    def resolution(self) -> int:
        return self.clip.config.image_resolution

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
          images: uint8 [B, h, w, 3], any size; resized and normalised here.
          place_keys: keys [1] or [B] for a random patch's place.
          noise_keys: keys [B] for the Gumbel noise of training; None for inference.
          temperature: of the relaxation; needed with `noise_keys`.

        Returns:
          Logits float32 [B, C] and what `prompted` says beside the pixels.
        """
        c = self.clip.config
        x = preprocess_batch(images, c.image_resolution, c.mean, c.std)
        x, out = self.prompted(x, place_keys, noise_keys, temperature)
        features = self.clip.encode_image(x)
        if self.head is not None:
            return self.head(features), out
        texts = self.get_variable("constants", "text_features")
        return cosine_logits(features, texts, self.clip.logit_scale), out

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

    def _touch_trained(self):
        """Creates the trained parts' parameters and nothing of the CLIP's."""
        side = self.resolution
        if self.prompt is not None:
            self.prompt(jax.random.split(jax.random.key(0), 1))
        if self.mask is not None:
            self.mask(jnp.zeros((1, side, side, 3)))
        if self.head is not None:
            self.head(jnp.zeros((1, self.clip.config.embed_dim)))

    def init_trained(self, key: jax.Array) -> dict:
        """Fresh parameters of the trained parts: {"prompt": ..., "mask": ..., "head": ...}."""
        return self.init(key, method="_touch_trained").get("params", {})
