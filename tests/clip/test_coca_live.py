"""Live against OpenCLIP's CoCa with random weights.

Needs the extras `parity` and `parity-towers`; what is missing of them is skipped.
"""

import json

import jax
import numpy as np
import pytest

import vprompt_jax as vp
from tests.clip.test_coca import texts
from tests.clip.test_libraries import IMAGES, SIDE, check, moved, save, to_torch
from vprompt_jax.process.errors import UserError

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")

TEXT = dict(context_length=9, vocab_size=99, width=32, heads=4, layers=2, embed_cls=True)
VISION = dict(
    layers=2, width=48, head_width=16, patch_size=8, image_size=SIDE, attentional_pool=True,
    attn_pooler_queries=5, attn_pooler_heads=4,
)  # fmt: skip
DECODER = dict(context_length=9, vocab_size=99, width=32, heads=4, layers=1)


def write(folder, **change):
    """A CoCa in OpenCLIP's layout; `change` by the config's part."""
    from open_clip.coca_model import CoCa

    model = dict(
        embed_dim=24, vision_cfg=VISION | dict(output_tokens=True) | change.get("vision", {}),
        text_cfg=TEXT | dict(output_tokens=True) | change.get("text", {}), multimodal_cfg=DECODER,
    ) | change.get("model", {})  # fmt: skip
    theirs = moved(CoCa(**json.loads(json.dumps(model))))
    save(theirs, folder / "open_clip_model.safetensors")
    config = {"model_cfg": model | {"custom_text": True}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return theirs


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"model": {"quick_gelu": True}},
        {"model": {"embed_dim": 48}, "vision": {"attn_pooler_heads": 8}},  # joined weights
        {"vision": {"attentional_pool": False}},
        {"vision": {"attentional_pool": False, "pool_type": "avg"}},
        {"vision": {"attn_pooler_queries": 1, "ls_init_value": 0.1, "mlp_ratio": 2.5}},
        {"text": {"no_causal_mask": True, "ls_init_value": 0.1}},
        {"text": {"pad_id": 7, "proj_bias": True, "pool_type": "last"}},
        {"text": {"proj_type": "none", "width": 24}},
        {"text": {"embed_cls": False, "pool_type": "eos", "eos_id": 98}},
        {"vision": {"norm_kwargs": {"eps": 1e-2}}, "text": {"norm_kwargs": {"eps": 1e-3}}},
        {"model": {"init_logit_bias": -3.0}},
    ],
)
def test_coca(tmp_path, change):
    theirs = write(tmp_path, **change)
    clip, variables = vp.clip.load(tmp_path)
    tokens = texts(pad=change.get("text", {}).get("pad_id", 0))
    encode = jax.jit(lambda v, x: clip.apply(v, x, method="encode_image"))
    of_texts = jax.jit(lambda v, x: clip.apply(v, x, method="encode_text"))
    with torch.no_grad():
        image = theirs.encode_image(to_torch(IMAGES), normalize=False)
        check(encode(variables, IMAGES), image)
        expected = theirs.encode_text(torch.from_numpy(tokens).long(), normalize=False)
        got = of_texts(variables, tokens)
        for row in range(len(tokens)):  # each length by itself
            check(got[row], expected[row])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"vision": {"pool_type": "avg"}}, "pool_type='avg' of what attentional_pool gives"),
        ({"vision": {"attentional_pool": "parallel"}}, "attentional_pool='parallel', which is not"),
        ({"vision": {"attentional_pool": "cascade"}}, "attentional_pool='cascade', which is not"),
    ],
)
def test_another_coca_is_refused(tmp_path, change, message):
    write(tmp_path, **change)
    with pytest.raises(UserError, match=message):
        vp.clip.load(tmp_path)


def test_a_text_is_another_with_less_padding(tmp_path):
    """OpenCLIP's mask hides all padding but the first, and a text's own token from itself."""
    theirs = write(tmp_path)
    tokens = texts()
    clip, variables = vp.clip.load(tmp_path)
    cut = clip.apply(variables, tokens[:, :7], method="encode_text")
    with torch.no_grad():
        check(cut, theirs.encode_text(torch.from_numpy(tokens[:, :7]).long(), normalize=False))
    whole = clip.apply(variables, tokens, method="encode_text")
    assert np.abs(np.asarray(cut) - np.asarray(whole)).max() > 1e-2
