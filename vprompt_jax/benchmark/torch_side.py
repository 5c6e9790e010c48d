"""VP's train step in torch (extra `parity`), to compare with in the same run.

There are three ways to write it. "public" is VP's training code: CLIP's weights require gradients
although only the prompt is updated, the class texts are encoded at every step, and 16 bits come
from autocast. "careful" freezes the weights, stores them in 16 bits, and encodes the texts once.
"compiled" is "careful" with `torch.compile`.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vprompt_jax.clip.config import CLIPConfig
from vprompt_jax.clip.towers import ViTConfig
from vprompt_jax.process.errors import UserError


def ways() -> list[str]:
    """The ways that run here; on a CPU, `torch.compile` would need a C++ compiler."""
    return ["public", "careful"] + ["compiled"] * (jax.default_backend() == "gpu")


class _Queued:
    """Lets `jax.block_until_ready` wait for everything that torch has queued on the GPU."""

    def block_until_ready(self) -> None:
        import torch

        torch.cuda.synchronize()


def make_step(
    config: CLIPConfig, batch_size: int, classes: int, way: str, dtype: str, precision: str
) -> Callable[[], Any]:
    """Makes a step of VP (border of 30/224, SGD) on a CLIP of random weights.

    It runs on a GPU if JAX does, else on the CPU.

    Args:
      config: architecture of the CLIP.
      batch_size: images per step.
      classes: number of class texts.
      way: one of `ways()`.
      dtype: dtype of the tower.
      precision: precision of float32 matrix products, by JAX's name.

    Raises:
      UserError: if torch is not installed or does not see the GPU, or the tower is not a ViT.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(f"--torch needs the extra 'parity' ({error})") from error
    vision, text = config.vision, config.text
    if (
        not isinstance(vision, ViTConfig)
        or text is None
        or (vision.pooling, text.pooling) != ("class", "end")
    ):
        raise UserError("--torch compares CLIPs with a vision transformer only")
    on_gpu = jax.default_backend() == "gpu"
    if on_gpu and not torch.cuda.is_available():
        raise UserError("--torch: JAX runs on a GPU, but this torch has no CUDA")
    device, kind = torch.device("cuda" if on_gpu else "cpu"), getattr(torch, dtype)
    torch.set_float32_matmul_precision("highest" if precision == "highest" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    side = config.image_resolution
    model: Any = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=dict(
                hidden_size=text.width, intermediate_size=4 * text.width,
                num_attention_heads=text.heads, num_hidden_layers=text.layers,
            ),
            vision_config=dict(
                hidden_size=vision.width, intermediate_size=4 * vision.width,
                num_attention_heads=vision.heads, num_hidden_layers=vision.layers,
                image_size=side, patch_size=vision.patch_size,
            ),
            projection_dim=config.embed_dim,
        )
    ).eval().to(device, torch.float32 if way == "public" else kind)  # fmt: skip
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(batch_size, 3, side, side)).astype(np.float32)
    images = torch.from_numpy(pixels).to(device)
    labels = torch.from_numpy(rng.integers(0, classes, batch_size)).to(device)
    words = rng.integers(1, 1000, (classes, text.context_length))
    tokens = torch.from_numpy(words).to(device)
    pad = round(30 / 224 * side)
    mask = torch.ones(1, 3, side, side, device=device)
    mask[..., pad : side - pad, pad : side - pad] = 0
    prompt = torch.nn.Parameter(torch.randn(1, 3, side, side, device=device))
    optimizer = torch.optim.SGD([prompt], 1e-3, momentum=0.9)

    def features(output: Any) -> Any:
        vectors = getattr(output, "pooler_output", output).float()  # transformers 5: an object
        return vectors / vectors.norm(dim=-1, keepdim=True)

    encode = model.get_image_features
    precise: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if way == "public":
        precise = torch.autocast(device.type, kind, enabled=dtype != "float32")
    else:
        model.requires_grad_(False)
        with torch.no_grad():
            cached = features(model.get_text_features(tokens))
    if way == "compiled":
        encode = torch.compile(encode)

    def step() -> Any:
        with precise:
            texts = features(model.get_text_features(tokens)) if way == "public" else cached
            prompted = images + prompt * mask
            seen = features(encode(prompted if way == "public" else prompted.to(kind)))
            logits = model.logit_scale.float().exp() * seen @ texts.T
            loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        model.zero_grad()
        loss.backward()
        optimizer.step()
        return _Queued() if on_gpu else None

    return step


def count_flops(step: Callable[[], Any]) -> int:
    """Counts a step's FLOPs as torch does: those of matrix products and convolutions.

    On a CPU, torch leaves out the products inside attention.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()
