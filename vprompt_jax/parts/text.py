"""The text side: parts that act on the class texts inside the text tower."""

import flax.linen as nn
import jax


class TextPart(nn.Module):
    """Changes activations of the text tower.

    While such a part is on, the class texts are encoded at every step, so that gradients reach it
    through the frozen text tower. Without one they are encoded once per run.
    """

    def texts(self, class_texts: list[list[str]]) -> list[list[str]]:
        """Returns the texts to encode, C lists of T; by default unchanged.

        A part that learns context tokens inserts placeholders here, and their vectors in
        `__call__`.
        """
        return class_texts

    def create(self) -> None:
        """Creates the parameters (Flax does so when any method is called)."""

    def __call__(self, position: int | str, x: jax.Array) -> jax.Array:
        """Returns what the text tower continues with.

        Args:
          position: "embeddings" (tokens before positions are added), or i, the input of block i.
          x: the activation there, [C * T, N, D].
        """
        raise NotImplementedError
