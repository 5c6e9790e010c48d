"""AdaptedCLIP: the one path from images to class logits."""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.class_texts import mean_embeddings
from vprompt_jax.clip.model import CLIP
from vprompt_jax.clip.preprocess import preprocess_batch
from vprompt_jax.clip.sites import PIXELS, Where, layer_name
from vprompt_jax.parts import Canvas, Context, HeadInputs, SelectedWeights, Side
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
    (frozen; only what is used of it is needed), "batch_stats" of a ResNet, "constants" (classes'
    "text_features" [C, E], or their "text_tokens" [C, T, N] where a part acts on the text side) and
    "assigned", by name.

    Attributes:
      clip: the CLIP whose weights stay as they are, but for those that `variables_of` replaces.
      parts: what acts on the pixels, inside the towers and on the features, in this order; the last
        one is the head.
      entry: the highest position (0..L) below which nothing is trained, or "pixels".
    """

    clip: CLIP
    parts: tuple[Built, ...]
    entry: Where = PIXELS

    def setup(self) -> None:
        # A submodule of each name, so that its parameters stand under that name.
        for part in self.parts:
            setattr(self, part.name, part.module)

    def _on(self, side: Side) -> list[Any]:
        """The parts of a side, bound, in the order in which they act."""
        return [getattr(self, part.name) for part in self.parts if part.side == side]

    def has(self, side: Side) -> bool:
        """Whether there is a part on a side."""
        return any(part.side == side for part in self.parts)

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
          by name, and what a head gives out.
        """
        canvas = self.canvas(images, context)
        logits, out = self._logits(self.features(canvas.result))
        return logits, {**out, "metrics": canvas.metrics}

    def from_activation(self, activation: jax.Array) -> tuple[jax.Array, Outputs]:
        """As `__call__`, from the activation at `entry` that `activation` gives."""
        logits, out = self._logits(self.features(activation, start=self._cached_at))
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

    def text_features(self) -> jax.Array:
        """The classes' text embeddings, float32 [C, E] of unit length."""
        parts = self._on("text")
        if not parts:
            return self.get_variable("constants", "text_features")
        tokens: jax.Array = self.get_variable("constants", "text_tokens")
        flat = tokens.reshape(-1, tokens.shape[-1])

        def tap(position: Where, x: jax.Array) -> jax.Array:
            for part in parts:
                x = part(position, x, flat)
            return x

        def interceptor(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            y = call(*args, **kwargs)
            if (name := layer_name(context, "text")) is not None:
                for part in parts:
                    y = part.layer(name, args[0], y)
            return y

        with nn.intercept_methods(interceptor):
            features = self.clip.encode_text(flat, tap=tap)
        return mean_embeddings(features.reshape(*tokens.shape[:2], -1))

    def at_inference(self) -> "AdaptedCLIP":
        """The model without its parts on the text side, for what `for_inference` gives."""
        return self.clone(parts=tuple(part for part in self.parts if part.side != "text"))

    def _logits(self, features: jax.Array) -> tuple[jax.Array, Outputs]:
        (head,) = self._on("head")
        given = HeadInputs(
            texts=self.text_features,
            logit_scale=lambda: self.clip.logit_scale,
            source_logits=self.clip.source_logits,
            assigned=self._assigned(),
        )
        return head(features, given)

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


def for_inference(
    model: AdaptedCLIP,
    params: Mapping[str, Any],
    frozen: Mapping[str, Any],
    weights: Mapping[str, SelectedWeights],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and frozen variables of `model.at_inference()`.

    Class texts that parts on the text side make stay the same at inference, so that they are
    encoded here, once. Parts on the weights' side may use others than in training.
    """
    clip = frozen["params"]["clip"]
    changed = {
        name: selected.at_inference(clip["visual"], params[name])
        for name, selected in weights.items()
    }
    if model.has("text"):
        variables = {"params": {"clip": clip, **params}, "constants": frozen["constants"]}
        frozen = {**frozen, "constants": {"text_features": _encoded_texts(model, variables)}}
    return {**params, **changed}, dict(frozen)


@functools.partial(jax.jit, static_argnums=0)  # compiled once, not at every evaluation
def _encoded_texts(model: AdaptedCLIP, variables: Mapping[str, Any]) -> Any:
    return model.apply(variables, method="text_features")


def variables_of(
    params: Mapping[str, Any],
    assigned: Mapping[str, Any],
    frozen: Mapping[str, Any],
    weights: Mapping[str, SelectedWeights],
) -> dict[str, Any]:
    """All variables of an `AdaptedCLIP`: the trained ones beside, or in place of, the frozen ones.

    Args:
      params: parameters by part.
      assigned: assigned arrays by name.
      frozen: the frozen variables.
      weights: how the parts on the weights' side replace the image tower's weights, by name.
    """
    clip = frozen["params"]["clip"]
    for name, selected in weights.items():
        clip = {**clip, "visual": selected.replaced(clip["visual"], params[name])}
    parts = {name: tree for name, tree in params.items() if name not in weights}
    return {**frozen, "params": {"clip": clip, **parts}, "assigned": dict(assigned)}
