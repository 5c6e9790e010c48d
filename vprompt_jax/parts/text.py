"""The text side: parts that act on the class texts inside the text tower."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax


class TextPart(nn.Module):
    """Changes activations of the text tower.

    While such a part is on, the class texts are encoded at every step, so that gradients reach it
    through the frozen text tower. At inference they are encoded once, unless a part sees the
    images.
    """

    @property
    def sees_images(self) -> bool:
        """Whether the texts depend on the image, so that each image has texts of its own."""
        return False

    def texts(self, class_names: Sequence[str], class_texts: list[list[str]]) -> list[list[str]]:
        """Returns the texts to encode, C lists of T.

        Args:
          class_names: C names.
          class_texts: what the other parts, or the templates, make of them; C lists.
        """
        del class_names
        return class_texts

    def create(self) -> None:
        """Creates the parameters (Flax does so when any method is called)."""

    def initial(self, params: dict[str, Any], embedding: jax.Array) -> dict[str, Any]:
        """Returns the parameters to start from.

        Args:
          params: fresh ones, which know nothing of the text tower's weights.
          embedding: the text tower's token embeddings, [vocabulary, D].
        """
        del embedding
        return params

    def at(
        self, position: int | str, x: jax.Array, tokens: jax.Array, images: jax.Array | None
    ) -> jax.Array:
        """Returns what the text tower continues with at a position.

        Args:
          position: "embeddings" (tokens before positions are added), or i, the input of block i.
          x: the activation there, [S, N, D]: S = C T texts, or B C T where a part sees the images.
          tokens: the texts' token ids, int32 [S, N].
          images: where a part sees them, the features of each text's image, float32 [S, E] of unit
            length.
        """
        del position, tokens, images
        return x

    def layer(self, name: str, x: jax.Array, y: jax.Array) -> jax.Array:
        """Returns what the text tower continues with after a layer.

        Args:
          name: of the layer, such as "resblocks_0/attn/in_proj".
          x: its input.
          y: its output.
        """
        del name, x
        return y
