"""The config of a ResNet."""

import dataclasses

from vprompt_jax.clip.checks import check_choice, check_positive


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """A ResNet of bottleneck blocks (arXiv 1512.03385); the defaults are CLIP's.

    Attributes:
      width: channels after the stem; the stages output 4, 8, 16, ... times as many.
      blocks: number of blocks per stage.
      image_resolution: side R of the square input, in pixels.
      heads: attention heads of the pooling; 0 for mean pooling.
      stem: "clip" (three 3x3 convolutions, average pooling) or "imagenet" (a 7x7 convolution, max
        pooling).
      antialias: whether an average pooling before the next 1x1 convolution takes the place of a
        strided 3x3 convolution (CLIP).
      pooling: how the last map becomes features: by "attention", whose query is the map's mean, or
        as the "mean" itself.
    """

    width: int
    blocks: tuple[int, ...]
    image_resolution: int
    heads: int = 0
    stem: str = "clip"
    antialias: bool = True
    pooling: str = "attention"
    kind: str = dataclasses.field(default="resnet", init=False)

    def __post_init__(self) -> None:
        check_positive("vision", self, "width", "image_resolution")
        check_choice("vision.stem", self.stem, ("clip", "imagenet"))
        check_choice("vision.pooling", self.pooling, ("attention", "mean"))
        if not self.blocks:
            raise ValueError("vision.blocks names no stage")
        if self.pooling == "attention":
            check_positive("vision", self, "heads")
            if self.channels % self.heads:
                raise ValueError(
                    f"vision: {self.heads} heads do not divide {self.channels} channels"
                )

    @property
    def channels(self) -> int:
        """Channels of the last map."""
        return 4 * self.width * 2 ** (len(self.blocks) - 1)

    @property
    def grid(self) -> int:
        """Cells per side of the last map."""
        return self.image_resolution // self.downscale

    @property
    def depth(self) -> int:
        return sum(self.blocks)

    @property
    def downscale(self) -> int:
        return 2 ** (len(self.blocks) + 1)

    @property
    def block_counts(self) -> dict[str, int]:
        """Number of blocks by the prefix of their names."""
        return {f"layer{stage}": count for stage, count in enumerate(self.blocks, 1)}

    def shortened(self) -> "ResNetConfig":
        """The same tower with at most two blocks per stage: the first block of a stage differs."""
        return dataclasses.replace(self, blocks=tuple(min(n, 2) for n in self.blocks))
