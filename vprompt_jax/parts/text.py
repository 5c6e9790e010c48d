"""The text side: parts that act on the class texts inside the text tower."""

from collections.abc import Sequence

import flax.linen as nn
import jax


class TextPart(nn.Module):
    """Changes activations of the text tower.

    While such a part is on, the class texts are encoded at every step, so that gradients reach it
    through the frozen text tower. At inference they are encoded once.
    """

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

    def __call__(self, position: int | str, x: jax.Array, tokens: jax.Array) -> jax.Array:
        """Returns what the text tower continues with at a position.

        Args:
          position: "embeddings" (tokens before positions are added), or i, the input of block i.
          x: the activation there, [C * T, N, D].
          tokens: the texts' token ids, int32 [C * T, N].
        """
        del position, tokens
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
