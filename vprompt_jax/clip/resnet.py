"""ResNets: CLIP's (three-convolution stem, anti-aliased strides, attention pooling) and the
original one."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.layers import Tap, no_tap, run_tower
from vprompt_jax.clip.resnet_config import ResNetConfig


def _conv3x3(features: int, stride: int, dtype: jnp.dtype) -> nn.Conv:
    # torch pads both sides alike; "SAME" would not at stride 2.
    return nn.Conv(features, (3, 3), (stride, stride), padding=1, use_bias=False, dtype=dtype)


def _conv1x1(features: int, dtype: jnp.dtype) -> nn.Dense:
    # As a matrix product: XLA's CPU backend takes twice as long for the convolution.
    return nn.Dense(features, use_bias=False, dtype=dtype)


def _batch_norm(train: bool, dtype: jnp.dtype) -> nn.BatchNorm:
    # eps and momentum of torch's BatchNorm2d; the stored statistics belong to the frozen model.
    return nn.BatchNorm(use_running_average=not train, epsilon=1e-5, momentum=0.9, dtype=dtype)


def _avg_pool(x: jax.Array, stride: int) -> jax.Array:
    return nn.avg_pool(x, (stride, stride), (stride, stride)) if stride > 1 else x


class ResNetBlock(nn.Module):
    """A bottleneck block: 1x1, 3x3 and 1x1 convolutions, and a shortcut.

    With `antialias` (CLIP), a stride is an average pooling before the last convolution and before
    the shortcut's. Without it (torchvision), the 3x3 convolution and the shortcut's are strided.
    """

    planes: int
    stride: int
    project: bool
    antialias: bool = True
    train: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.conv1 = _conv1x1(self.planes, self.dtype)
        self.bn1 = _batch_norm(self.train, self.dtype)
        self.conv2 = _conv3x3(self.planes, 1 if self.antialias else self.stride, self.dtype)
        self.bn2 = _batch_norm(self.train, self.dtype)
        self.conv3 = _conv1x1(4 * self.planes, self.dtype)
        self.bn3 = _batch_norm(self.train, self.dtype)
        if self.project:
            self.downsample_conv = _conv1x1(4 * self.planes, self.dtype)
            self.downsample_bn = _batch_norm(self.train, self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(self.bn1(self.conv1(x)))
        y = nn.relu(self.bn2(self.conv2(y)))
        if self.antialias:
            x, y = _avg_pool(x, self.stride), _avg_pool(y, self.stride)
        elif self.stride > 1:
            x = x[:, :: self.stride, :: self.stride]  # what a strided 1x1 convolution reads
        y = self.bn3(self.conv3(y))
        if self.project:
            x = self.downsample_bn(self.downsample_conv(x))
        return nn.relu(x + y)


class AttentionPool(nn.Module):
    """Pools a map [B, H, W, C] to [B, E] by attention whose only query is the mean token."""

    positions: int
    heads: int
    embed_dim: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, _, _, width = x.shape
        x = x.reshape(batch, -1, width)
        x = jnp.concatenate([x.mean(axis=1, keepdims=True), x], axis=1)
        embedding = self.param(
            "positional_embedding", nn.initializers.normal(width**-0.5), (self.positions, width)
        )
        x = x + embedding.astype(x.dtype)[None]

        def heads(name: str, y: jax.Array) -> jax.Array:
            y = nn.Dense(width, dtype=self.dtype, name=name)(y)
            return y.reshape(batch, y.shape[1], self.heads, -1)

        y = jax.nn.dot_product_attention(
            heads("q_proj", x[:, :1]), heads("k_proj", x), heads("v_proj", x)
        )
        return nn.Dense(self.embed_dim, dtype=self.dtype, name="c_proj")(y.reshape(batch, width))


class ModifiedResNet(nn.Module):
    """A ResNet of bottleneck blocks with any number of stages.

    Its config makes it CLIP's (arXiv 2103.00020, section 2.4), or that of arXiv 1512.03385 as
    torchvision builds it.

    Attributes:
      config: the tower's config.
      embed_dim: channels E of the features if the pooling is attention.
      train: whether batch normalisation uses the batch's statistics.
      dtype: dtype of the computation.
    """

    config: ResNetConfig
    embed_dim: int
    train: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        c = self.config
        width = c.width
        if c.stem == "imagenet":
            self.conv1 = nn.Conv(width, (7, 7), (2, 2), padding=3, use_bias=False, dtype=self.dtype)
            self.bn1 = _batch_norm(self.train, self.dtype)
        else:
            self.conv1 = _conv3x3(width // 2, 2, self.dtype)
            self.bn1 = _batch_norm(self.train, self.dtype)
            self.conv2 = _conv3x3(width // 2, 1, self.dtype)
            self.bn2 = _batch_norm(self.train, self.dtype)
            self.conv3 = _conv3x3(width, 1, self.dtype)
            self.bn3 = _batch_norm(self.train, self.dtype)
        blocks: list[ResNetBlock] = []
        for stage, count in enumerate(c.blocks):
            layer = [
                ResNetBlock(
                    planes=width * 2**stage,
                    stride=2 if stage > 0 and i == 0 else 1,
                    project=i == 0,
                    antialias=c.antialias,
                    train=self.train,
                    dtype=self.dtype,
                )
                for i in range(count)
            ]
            setattr(self, f"layer{stage + 1}", layer)  # names layer1_0, layer1_1, ...
            blocks += layer
        self.blocks = blocks
        if c.pooling == "attention":
            positions = c.grid**2 + 1  # the first is the mean token's
            self.attnpool = AttentionPool(positions, c.heads, self.embed_dim, self.dtype)

    def __call__(
        self,
        x: jax.Array,
        *,
        start: int | None = None,
        stop: int | None = None,
        tap: Tap = no_tap,
    ) -> jax.Array:
        """Pixels [B, R, R, 3] -> features [B, E]; `start`, `stop`, `tap` as in `run_tower`."""
        return run_tower(
            x,
            stem=self._stem,
            blocks=self.blocks,
            pool=self._pool,
            start=start,
            stop=stop,
            tap=tap,
        )

    def _stem(self, x: jax.Array) -> jax.Array:
        x = x.astype(self.dtype)
        x = nn.relu(self.bn1(self.conv1(x)))
        if self.config.stem == "imagenet":
            return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        x = nn.relu(self.bn2(self.conv2(x)))
        x = nn.relu(self.bn3(self.conv3(x)))
        return _avg_pool(x, 2)

    def _pool(self, x: jax.Array) -> jax.Array:
        return self.attnpool(x) if self.config.pooling == "attention" else x.mean(axis=(1, 2))
