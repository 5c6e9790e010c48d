"""The same work in torch (extra `parity`), as people do it now, for comparison in one run.

"public": as VP's training code does it: CLIP's weights require gradients although only the prompt
is updated, and the class texts are encoded at every step. "careful": frozen weights, texts once.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from vprompt_jax.clip.variants import CLIPConfig
from vprompt_jax.errors import UserError


def make_step(config: CLIPConfig, batch_size: int, classes: int, careful: bool) -> Callable:
    """A step of VP (border of 30/224, SGD) on a CLIP of random weights.

    Raises:
      UserError: if torch is not installed, or the tower is not a ViT.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(f"--torch needs the extra 'parity' ({error})") from error
    if not config.is_vit:
        raise UserError("--torch compares vision transformers only")
    side = config.image_resolution
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=dict(
                hidden_size=config.text_width, intermediate_size=4 * config.text_width,
                num_attention_heads=config.text_heads, num_hidden_layers=config.text_layers,
            ),
            vision_config=dict(
                hidden_size=config.vision_width, intermediate_size=4 * config.vision_width,
                num_attention_heads=config.vision_heads, num_hidden_layers=config.vision_layers,
                image_size=side, patch_size=config.vision_patch_size,
            ),
            projection_dim=config.embed_dim,
        )
    ).eval()  # fmt: skip
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(batch_size, 3, side, side)).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, classes, batch_size))
    tokens = torch.from_numpy(rng.integers(1, 1000, (classes, config.context_length)))
    pad = round(30 / 224 * side)
    mask = torch.ones(1, 3, side, side)
    mask[..., pad : side - pad, pad : side - pad] = 0
    prompt = torch.nn.Parameter(torch.randn(1, 3, side, side))
    optimizer = torch.optim.SGD([prompt], 1e-3, momentum=0.9)

    def features(output: Any) -> Any:
        made = getattr(output, "pooler_output", output)  # newer versions return an object
        return made / made.norm(dim=-1, keepdim=True)

    if careful:
        model.requires_grad_(False)
        with torch.no_grad():
            cached = features(model.get_text_features(tokens))

    def step() -> None:
        texts = cached if careful else features(model.get_text_features(tokens))
        seen = features(model.get_image_features(images + prompt * mask))
        logits = model.logit_scale.exp() * seen @ texts.T
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        model.zero_grad()
        loss.backward()
        optimizer.step()

    return step
