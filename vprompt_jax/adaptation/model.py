"""AdaptedCLIP: the one path from images to class logits."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.class_texts import mean_embeddings
from vprompt_jax.clip.model import CLIP, cosine_logits, unit_norm
from vprompt_jax.clip.preprocess import preprocess_batch
from vprompt_jax.clip.sites import PIXELS, Where, layer_name
from vprompt_jax.parts import (
    Canvas,
    Context,
    HeadInputs,
    LossInputs,
    Side,
    TextPart,
)
from vprompt_jax.parts.adapter import Adapter, acting
from vprompt_jax.parts.context import at_inference

Outputs = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Built:
    """A part on its tower.

    Attributes:
      name: of its parameters.
      side: where it acts.
      module: a Flax module, unbound.
    """

    name: str
    side: Side
    module: nn.Module


class AdaptedCLIP(nn.Module):
    """A frozen CLIP with the parts that adapt it.

    Its variables are those of its parts: "params" under the parts' names (trained) and under "clip"
    (frozen; only what is used of it is needed), "batch_stats" of a ResNet, "constants" (the frozen
    CLIP's "text_features" [C, E] of the classes, "source_texts" [T C, E] where a head maps them,
    and "text_tokens" [C, T, N] where a part acts on the text side) and "assigned", by name.

    Attributes:
      clip: the CLIP whose weights stay as they are, but for those that `variables_of` replaces.
      parts: what acts on the pixels, inside the towers, on the features (the head) and on the loss,
        in this order.
      entry: the highest position (0..L) below which nothing is trained, or "pixels".
    """

    clip: CLIP
    parts: tuple[Built, ...]
    entry: Where = PIXELS

    def setup(self) -> None:
        # A submodule of each name, so that its parameters stand under that name. A part that acts
        # on two sides is there twice.
        for name, module in {part.name: part.module for part in self.parts}.items():
            setattr(self, name, module)

    def _on(self, side: Side) -> list[Any]:
        """The parts of a side, bound, in the order in which they act."""
        return [getattr(self, part.name) for part in self.built(side)]

    def built(self, side: Side) -> list[Built]:
        """The parts of a side, in the order in which they act."""
        return [part for part in self.parts if part.side == side]

    def has(self, side: Side) -> bool:
        """Whether there is a part on a side."""
        return bool(self.built(side))

    @property
    def losses(self) -> Callable[..., jax.Array]:
        """The head's `Head.losses`."""
        (head,) = self.built("head")
        losses: Callable[..., jax.Array] = head.module.losses
        return losses

    @property
    def texts_see_images(self) -> bool:
        """Whether every image has class texts of its own."""
        return any(part.module.sees_images for part in self.built("text"))

    @property
    def resolution(self) -> int:
        """Side R of the tower's input, in pixels."""
        return self.clip.config.image_resolution

    def __call__(self, images: jax.Array, context: Context) -> tuple[jax.Array, Outputs]:
        """Class logits of images.

        Args:
          images: uint8 [B, h, w, 3], any size, resized and normalised here.
          context: of the batch.

        Returns:
          Logits float32 [B, C] and what the parts say beside them: "metrics", numbers per example
          by name; "penalty", float32 [B], if a part acts on the loss; and what a head gives out.
        """
        canvas = self.canvas(images, context)

        def frozen() -> jax.Array:
            return self.clip.encode_image(self.pixels(images))

        logits, out = self._logits(self.features(canvas.result), frozen)
        return logits, {**out, "metrics": canvas.metrics}

    def from_activation(self, activation: jax.Array) -> tuple[jax.Array, Outputs]:
        """As `__call__`, from the activation at `entry` that `activation` gives."""

        def frozen() -> jax.Array:
            return self.clip.encode_image(activation, start=self._cached_at)

        logits, out = self._logits(self.features(activation, start=self._cached_at), frozen)
        return logits, {**out, "metrics": {}}

    @property
    def _cached_at(self) -> int:
        """The entry, where activations can be cached: not at the pixels."""
        assert isinstance(self.entry, int), "training enters at the pixels"
        return self.entry

    def pixels(self, images: jax.Array) -> jax.Array:
        """uint8 [B, h, w, 3] of any size -> the tower's input, normalised float32 [B, R, R, 3]."""
        c = self.clip.config
        return preprocess_batch(images, c.image_resolution, c.mean, c.std, mode=c.resize)

    def canvas(self, images: jax.Array, context: Context) -> Canvas:
        """What the parts on the pixel side make of images, uint8 [B, h, w, 3] of any size."""
        return self.prompted(self.pixels(images), context)

    def prompted(self, x: jax.Array, context: Context) -> Canvas:
        """Normalised pixels [B, R, R, 3] with what the parts on the pixel side do to them."""
        canvas = Canvas(x, assigned=self._assigned())
        for part in self._on("pixels"):
            canvas = part.prompted(canvas, context)
        return canvas

    def features(self, x: jax.Array, *, start: int | None = None) -> jax.Array:
        """Image features [B, E] with the adapters acting.

        Args:
          x: normalised pixels [B, R, R, 3], or the activation at position `start`.
          start: None for pixels.
        """
        adapters: list[Adapter] = self._on("tower")
        tap, interceptor = acting(adapters)
        if start is None:
            x = tap(PIXELS, x)
        with nn.intercept_methods(interceptor) if adapters else contextlib.nullcontext():
            return self.clip.encode_image(x, start=start, tap=tap)

    def activation(self, images: jax.Array) -> jax.Array:
        """The frozen tower's activation at `entry`, of uint8 images [B, h, w, 3]."""
        return self.clip.encode_image(self.pixels(images), stop=self._cached_at)

    def text_features(self, features: jax.Array | None = None) -> jax.Array:
        """The classes' text embeddings, float32 of unit length.

        Args:
          features: image features [B, E], which texts may depend on (`texts_see_images`).

        Returns:
          [C, E], or [B, C, E] where texts depend on the image.
        """
        parts: list[TextPart] = self._on("text")
        if not parts:
            return self.get_variable("constants", "text_features")
        tokens: jax.Array = self.get_variable("constants", "text_tokens")
        classes, texts, length = tokens.shape
        flat, images = tokens.reshape(-1, length), None
        if self.texts_see_images:
            assert features is not None
            seen, count = unit_norm(features.astype(jnp.float32)), features.shape[0]
            images = jnp.broadcast_to(seen[:, None], (count, len(flat), seen.shape[-1]))
            images = images.reshape(-1, seen.shape[-1])
            flat = jnp.broadcast_to(flat[None], (count, *flat.shape)).reshape(-1, length)

        def tap(position: Where, x: jax.Array) -> jax.Array:
            for part in parts:
                x = part.at(position, x, flat, images)
            return x

        def interceptor(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            y = call(*args, **kwargs)
            if (name := layer_name(context, "text")) is not None:
                for part in parts:
                    y = part.layer(name, args[0], y)
            return y

        with nn.intercept_methods(interceptor):
            encoded = self.clip.encode_text(flat, tap=tap)
        means = mean_embeddings(encoded.reshape(-1, texts, encoded.shape[-1]))
        return means if images is None else means.reshape(-1, classes, means.shape[-1])

    def at_inference(self) -> "AdaptedCLIP":
        """The model for what `for_inference` gives: without parts on the loss, and without those on
        the text side unless texts depend on the image."""
        off = ("loss",) if self.texts_see_images else ("loss", "text")
        return self.clone(parts=tuple(part for part in self.parts if part.side not in off))

    def _logits(
        self, features: jax.Array, frozen: Callable[[], jax.Array]
    ) -> tuple[jax.Array, Outputs]:
        """Logits and outputs, given the features and how to get those of the frozen tower."""
        (head,) = self._on("head")
        texts = functools.cache(functools.partial(self.text_features, features))
        given = HeadInputs(
            texts=texts,
            logit_scale=lambda: self.clip.logit_scale,
            logit_bias=lambda: self.clip.logit_bias,
            source_logits=self.source_logits,
            assigned=self._assigned(),
        )
        logits, out = head(features, given)
        if penalties := self._on("loss"):
            seen = LossInputs(
                features=features,
                texts=texts(),
                logits=logits,
                logit_scale=self.clip.logit_scale,
                frozen_features=frozen(),
                frozen_texts=self.get_variable("constants", "text_features"),
            )
            out = {**out, "penalty": sum(penalty(seen) for penalty in penalties)}
        return logits, out

    def source_logits(self, features: jax.Array) -> jax.Array:
        """Logits [B, K] of what a head may map to the classes (`HeadInputs.source_logits`)."""
        if self.clip.config.classes:
            return self.clip.source_logits(features)
        texts: jax.Array = self.get_variable("constants", "source_texts")
        return cosine_logits(features, texts, self.clip.logit_scale)

    def _assigned(self) -> dict[str, jax.Array]:
        names = self.variables.get("assigned", {})
        return {name: self.get_variable("assigned", name) for name in names}

    def _touch_parts(self) -> None:
        """Creates the parts' parameters and nothing of the CLIP's."""
        side = self.resolution
        self.prompted(jnp.zeros((1, side, side, 3)), at_inference(0))
        for part in [*self._on("tower"), *self._on("text")]:
            part.create()
        (head,) = self._on("head")
        head.create(self.clip.config.embed_dim)

    def init_parts(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters of the parts that have any, by name."""
        return dict(self.init(key, method="_touch_parts").get("params", {}))
