"""Supervised towers in .npz and timm's layout, against a ViT written out in NumPy."""

import json

import jax
import numpy as np
import pytest

import vprompt_jax as vp
from vprompt_jax.clip.checkpoints import formats
from vprompt_jax.clip.sites import sites_of
from vprompt_jax.process.errors import UserError

WIDTH, HEADS, LAYERS, PATCH, SIDE, CLASSES = 24, 3, 2, 8, 32, 5
FIRST = "Transformer/encoderblock_0/"
HALF = (0.5, 0.5, 0.5)


def npz_arrays(pre_logits: bool) -> dict[str, np.ndarray]:
    """Random weights in the layout of the original ViT (github.com/google-research/
    vision_transformer), whose attention keeps heads as an axis."""
    rng = np.random.default_rng(0)

    def normal(*shape, scale=0.3):
        return rng.normal(0, scale, shape).astype(np.float32)

    arrays = {
        "cls": normal(1, 1, WIDTH),
        "embedding/kernel": normal(PATCH, PATCH, 3, WIDTH, scale=0.1),
        "embedding/bias": normal(WIDTH),
        "Transformer/posembed_input/pos_embedding": normal(1, (SIDE // PATCH) ** 2 + 1, WIDTH),
        "head/kernel": normal(WIDTH, CLASSES),
        "head/bias": normal(CLASSES),
    }
    if pre_logits:
        arrays |= {"pre_logits/kernel": normal(WIDTH, WIDTH), "pre_logits/bias": normal(WIDTH)}
    norms = ["Transformer/encoder_norm/"]
    for i in range(LAYERS):
        block = f"Transformer/encoderblock_{i}/"
        norms += [f"{block}LayerNorm_0/", f"{block}LayerNorm_2/"]
        attention = f"{block}MultiHeadDotProductAttention_1/"
        for name in ("query", "key", "value"):
            arrays[f"{attention}{name}/kernel"] = normal(WIDTH, HEADS, WIDTH // HEADS)
            arrays[f"{attention}{name}/bias"] = normal(HEADS, WIDTH // HEADS)
        arrays[f"{attention}out/kernel"] = normal(HEADS, WIDTH // HEADS, WIDTH)
        arrays[f"{attention}out/bias"] = normal(WIDTH)
        for j, (inside, outside) in enumerate(((WIDTH, 80), (80, WIDTH))):
            arrays[f"{block}MlpBlock_3/Dense_{j}/kernel"] = normal(inside, outside)
            arrays[f"{block}MlpBlock_3/Dense_{j}/bias"] = normal(outside)
    for norm in norms:
        arrays[f"{norm}scale"] = rng.uniform(0.5, 1.5, WIDTH).astype(np.float32)
        arrays[f"{norm}bias"] = normal(WIDTH)
    return arrays


def reference(arrays, images):
    """Features and logits of the ViT of arXiv 2010.11929, in float64 and one head at a time."""
    p = {name: value.astype(np.float64) for name, value in arrays.items()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6)
        return centred / scale * p[f"{name}/scale"] + p[f"{name}/bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    tokens = [np.broadcast_to(p["cls"][0], (len(images), 1, WIDTH))]
    for row in range(0, SIDE, PATCH):
        for column in range(0, SIDE, PATCH):
            patch = images[:, row : row + PATCH, column : column + PATCH]
            value = np.einsum("bijc,ijcd->bd", patch, p["embedding/kernel"]) + p["embedding/bias"]
            tokens.append(value[:, None])
    x = np.concatenate(tokens, 1) + p["Transformer/posembed_input/pos_embedding"]
    for i in range(LAYERS):
        block = f"Transformer/encoderblock_{i}/"
        y = norm(x, f"{block}LayerNorm_0")
        a = f"{block}MultiHeadDotProductAttention_1/"
        for h in range(HEADS):
            q, k, v = (
                y @ p[f"{a}{name}/kernel"][:, h] + p[f"{a}{name}/bias"][h]
                for name in ("query", "key", "value")
            )
            weights = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH // HEADS))
            weights /= weights.sum(-1, keepdims=True)
            x = x + weights @ v @ p[f"{a}out/kernel"][h]
        x = x + p[f"{a}out/bias"]
        y = norm(x, f"{block}LayerNorm_2")
        m = f"{block}MlpBlock_3/Dense_"
        y = gelu(y @ p[f"{m}0/kernel"] + p[f"{m}0/bias"])
        x = x + y @ p[f"{m}1/kernel"] + p[f"{m}1/bias"]
    features = logits = norm(x, "Transformer/encoder_norm")[:, 0]
    if "pre_logits/kernel" in p:
        logits = np.tanh(logits @ p["pre_logits/kernel"] + p["pre_logits/bias"])
    return features, logits @ p["head/kernel"] + p["head/bias"]


def timm_tensors(arrays):
    """The same weights in timm's names and torch's layouts."""

    def linear(name, ours):
        return {
            f"{name}.weight": arrays[f"{ours}/kernel"].reshape(-1, arrays[f"{ours}/bias"].size).T,
            f"{name}.bias": arrays[f"{ours}/bias"].reshape(-1),
        }

    tensors = {
        "cls_token": arrays["cls"],
        "pos_embed": arrays["Transformer/posembed_input/pos_embedding"],
        "patch_embed.proj.weight": arrays["embedding/kernel"].transpose(3, 2, 0, 1),
        "patch_embed.proj.bias": arrays["embedding/bias"],
        "norm.weight": arrays["Transformer/encoder_norm/scale"],
        "norm.bias": arrays["Transformer/encoder_norm/bias"],
    } | linear("head", "head")
    for i in range(LAYERS):
        block = f"Transformer/encoderblock_{i}/"
        qkv = [
            linear("x", f"{block}MultiHeadDotProductAttention_1/{n}")
            for n in ("query", "key", "value")
        ]
        for part in ("weight", "bias"):
            tensors[f"blocks.{i}.attn.qkv.{part}"] = np.concatenate([x[f"x.{part}"] for x in qkv])
        tensors |= linear(f"blocks.{i}.attn.proj", f"{block}MultiHeadDotProductAttention_1/out")
        for j in (0, 1):
            tensors |= linear(f"blocks.{i}.mlp.fc{j + 1}", f"{block}MlpBlock_3/Dense_{j}")
            norm = f"{block}LayerNorm_{2 * j}"
            tensors[f"blocks.{i}.norm{j + 1}.weight"] = arrays[f"{norm}/scale"]
            tensors[f"blocks.{i}.norm{j + 1}.bias"] = arrays[f"{norm}/bias"]
    return tensors


IMAGES = np.random.default_rng(1).normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)


def outputs(model, variables):
    def both(variables, images):
        features = model.apply(variables, images, method="encode_image")
        return features, model.apply(variables, features, method="source_logits")

    return jax.jit(both)(variables, IMAGES)


@pytest.mark.parametrize("pre_logits", [True, False])
def test_npz_agrees_with_the_written_out_vit(tmp_path, pre_logits):
    arrays = npz_arrays(pre_logits)
    np.savez(tmp_path / "vit.npz", **arrays)
    model, variables = vp.clip.load(tmp_path / "vit.npz")
    c = model.config
    assert (c.vision.heads, c.vision.mlp_width, c.image_resolution) == (HEADS, 80, SIDE)
    assert (c.classes, c.mean, c.has_text) == (CLASSES, HALF, False)
    for ours, theirs in zip(outputs(model, variables), reference(arrays, IMAGES), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_timm_holds_the_same(tmp_path):
    arrays = npz_arrays(False)
    np.savez(tmp_path / "vit.npz", **arrays)
    formats.write_safetensors(tmp_path / "model.safetensors", timm_tensors(arrays), {})
    config = {"architecture": "vit_tiny_patch8_32", "pretrained_cfg": {"mean": HALF, "std": HALF}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    # timm's ViTs use the exact GELU, and nothing tells how many heads a width of 24 has.
    fields = {"vision_heads": HEADS}
    model, variables = vp.clip.load(tmp_path / "model.safetensors", fields=fields)
    expected = vp.clip.load(tmp_path / "vit.npz", activation="gelu")
    assert model.config == expected[0].config
    jax.tree.map(np.testing.assert_array_equal, variables, expected[1])


def test_another_architecture_of_timm_is_refused(tmp_path):
    tensors = timm_tensors(npz_arrays(False))
    formats.write_safetensors(tmp_path / "model.safetensors", tensors, {})
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_srelpos_small"}))
    with pytest.raises(UserError, match="'vit_srelpos_small', which is not supported"):
        vp.clip.load(tmp_path)


def test_positions_and_taps_are_those_of_clip(tmp_path):
    np.savez(tmp_path / "vit.npz", **npz_arrays(False))
    model, variables = vp.clip.load(tmp_path / "vit.npz")
    seen = []

    def tap(position, x):
        seen.append((position, x.shape))
        return x

    whole = model.apply(variables, IMAGES, tap=tap, method="encode_image")
    assert [p for p, _ in seen] == list(range(LAYERS + 1))
    assert {"resblocks_1/ln_1", "resblocks_0/ln_2", "ln_post"} <= set(sites_of(model, variables))
    middle = model.apply(variables, IMAGES, stop=1, method="encode_image")
    above = model.apply(variables, middle, start=1, method="encode_image")
    np.testing.assert_array_equal(above, whole)


def test_an_object_array_in_an_npz_is_refused(tmp_path):
    np.savez(tmp_path / "evil.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="holds Python objects"):
        vp.clip.load(tmp_path / "evil.npz")
