"""The text side: what acts on the class texts inside of the text tower."""

import flax.linen as nn
import jax


class TextPart(nn.Module):
    """What changes activations of the text tower.

    While one is on, the class texts are encoded at every step, and gradients reach it through the
    frozen text tower; without one they are encoded once per run.
    """

    def texts(self, class_texts: list[list[str]]) -> list[list[str]]:
        """The texts to encode, C lists of T; by default as they are.

        A part that learns context tokens puts placeholders here and their vectors in `__call__`.
        """
        return class_texts

    def create(self) -> None:
        """Creates the parameters (Flax does so when any method is called)."""

    def __call__(self, position: int | str, x: jax.Array) -> jax.Array:
        """What the text tower goes on with.

        Args:
          position: "embeddings" (tokens before positions are added), or i, the input of block i.
          x: the activation there, [C * T, N, D].
        """
        raise NotImplementedError
