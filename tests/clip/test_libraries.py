"""Live against transformers, OpenCLIP and timm: what their configs can say, and what it computes.

Needs the extras `parity` and `parity-towers`; what is missing of them is skipped.
Every parameter and buffer is moved, so that nothing hides in a zero or a one.
"""

import dataclasses
import inspect
import json
import re

import jax
import numpy as np
import pytest

import vprompt_jax as vp
from tests.clip.test_dino import meta
from vprompt_jax.clip.checkpoints import open_clip as open_clip_keys
from vprompt_jax.clip.checkpoints import processors, timm_keys, transformers_keys
from vprompt_jax.process.errors import UserError

torch = pytest.importorskip("torch")

SIDE = 32
IMAGES = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)
TOKENS = np.random.default_rng(1).integers(1, 90, (3, 9)).astype(np.int32)
TOKENS[:, 6] = 98
TOKENS[:, 3] = 95
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def library(name):
    return pytest.importorskip(name)


def to_torch(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def moved(model, seed=0):
    """Random weights and statistics."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not value.is_floating_point() or name.endswith("attn_mask"):
            continue
        if name.endswith("logit_scale"):
            value.data.fill_(2.0)
        elif name.endswith(("running_var", "gamma")) or (
            value.ndim == 1 and name.endswith("weight")
        ):
            value.data.uniform_(0.5, 1.5, generator=generator)
        else:
            scale = value[0].numel() ** -0.5 if value.ndim > 1 else 0.2
            value.data.normal_(0, scale, generator=generator)
    return model.eval()


def check(ours, theirs):
    theirs = theirs.detach().numpy()
    assert np.abs(np.asarray(ours) - theirs).max() < 1e-4 * np.abs(theirs).max()


def features(folder, **options):
    """A loaded model and its features; texts' too if there are any, and its own logits."""
    model, variables = vp.clip.load(folder, **options)
    image = jax.jit(lambda v, x: model.apply(v, x, method="encode_image"))(variables, IMAGES)
    text = logits = None
    if model.config.has_text:
        text = jax.jit(lambda v, t: model.apply(v, t, method="encode_text"))(variables, TOKENS)
    if model.config.classes:
        logits = model.apply(variables, image, method="source_logits")
    return model, image, text, logits


# The tables know every key.


def names_of(config_class):
    own = {field.name for field in dataclasses.fields(config_class)}
    return own | set(config_class().to_dict())


@pytest.mark.parametrize(
    "keys, name",
    [
        (transformers_keys.CLIP, "CLIPConfig"),
        (transformers_keys.CLIP_VISION, "CLIPVisionConfig"),
        (transformers_keys.CLIP_TEXT, "CLIPTextConfig"),
        (transformers_keys.SIGLIP, "SiglipConfig"),
        (transformers_keys.SIGLIP_VISION, "SiglipVisionConfig"),
        (transformers_keys.SIGLIP_TEXT, "SiglipTextConfig"),
        (transformers_keys.VIT, "ViTConfig"),
        (transformers_keys.DINOV2, "Dinov2Config"),
        (transformers_keys.DINOV2, "Dinov2WithRegistersConfig"),
        (transformers_keys.DINOV3, "DINOv3ViTConfig"),
        (transformers_keys.RESNET, "ResNetConfig"),
    ],
)
def test_every_key_of_transformers_is_in_a_table(keys, name):
    assert names_of(getattr(library("transformers"), name)) <= keys.known


def test_every_key_of_image_processors_is_in_a_table():
    transformers = library("transformers")
    for name in (
        "CLIPImageProcessor",
        "ViTImageProcessor",
        "ConvNextImageProcessor",
        "SiglipImageProcessor",
        "BitImageProcessor",
        "DINOv3ViTImageProcessor",
    ):
        processor = getattr(transformers, name)
        assert set(processor().to_dict()) <= processors.PROCESSOR.known
        if hasattr(processor, "valid_kwargs"):
            assert set(processor.valid_kwargs.__annotations__) <= processors.PROCESSOR.known


def test_every_key_of_open_clip_is_in_a_table():
    open_clip = library("open_clip")
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
    from open_clip.transform import PreprocessCfg

    def fields(config):
        return {field.name for field in dataclasses.fields(config)}

    assert fields(CLIPVisionCfg) == open_clip_keys.VISION.known
    assert fields(CLIPTextCfg) == open_clip_keys.TEXT.known
    assert fields(PreprocessCfg) == open_clip_keys.PREPROCESS.known
    for model in (open_clip.model.CLIP, CustomTextCLIP):
        arguments = set(inspect.signature(model.__init__).parameters) - {"self"}
        assert arguments <= open_clip_keys.MODEL.known


def test_every_key_of_timm_is_in_a_table():
    library("timm")
    from timm.models._pretrained import PretrainedCfg
    from timm.models.eva import Eva
    from timm.models.resnet import ResNet
    from timm.models.vision_transformer import VisionTransformer

    for model, keys in (
        (VisionTransformer, timm_keys.VIT_ARGS),
        (ResNet, timm_keys.RESNET_ARGS),
        (Eva, timm_keys.EVA_ARGS),
    ):
        arguments = set(inspect.signature(model.__init__).parameters) - {"self"}
        assert arguments == keys.known
    assert {f.name for f in dataclasses.fields(PretrainedCfg)} <= timm_keys.PRETRAINED.known
    assert timm_keys.PRETRAINED.known <= timm_keys.CONFIG.known


def test_what_timms_names_of_architectures_stand_for():
    """Every name that a pattern takes, and no other kind of block behind it."""
    create, named = library("timm").create_model, library("timm").list_models()
    from timm.models.vision_transformer import Attention, Block, VisionTransformer

    known, used = {**timm_keys.VITS, **timm_keys.SIGLIPS}, set()
    for name in named:
        found = [(p, match) for p in known if (match := re.fullmatch(p, name))]
        if not found:
            assert "siglip" not in name or "naflex" in name
            continue
        [(pattern, match)] = found
        used.add(pattern)
        with torch.device("meta"):
            model = create(name, depth=1)
        block, args = model.blocks[0], timm_keys.VIT_ARGS.values(known[pattern])
        kinds = type(model), type(block), type(block.attn)
        assert kinds == (VisionTransformer, Block, Attention), name
        fc_norm = args["global_pool"] == "avg" if args["fc_norm"] is None else args["fc_norm"]
        gated = args["mlp_layer"] == timm_keys.SWIGLU
        theirs = (
            model.cls_token is not None, model.num_reg_tokens, model.no_embed_class,
            model.global_pool, block.attn.qkv.bias is not None, block.attn.num_heads,
            type(block.mlp.act).__name__, type(block.mlp).__name__,
            type(model.fc_norm).__name__ == "LayerNorm", type(model.norm_pre).__name__,
            block.norm1.eps, type(block.attn.q_norm).__name__,
        )  # fmt: skip
        ours = (
            args["class_token"], args["reg_tokens"], args["no_embed_class"],
            args["global_pool"] or "token", args["qkv_bias"],
            timm_keys.HEADS.get(match[1], model.embed_dim // 64),
            {"silu": "SiLU", "gelu_tanh": "GELUTanh", None: "GELU"}[args["act_layer"]],
            "GluMlp" if gated else "Mlp", fc_norm, "Identity", 1e-6, "Identity",
        )  # fmt: skip
        assert theirs == ours, name
    assert used == set(known)


# transformers

VISION = dict(
    hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=3,
    image_size=SIDE, patch_size=8, hidden_act="gelu", layer_norm_eps=1e-3, projection_dim=24,
)  # fmt: skip
TEXT = dict(
    hidden_size=32, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=9, vocab_size=99, hidden_act="quick_gelu", layer_norm_eps=1e-2,
    bos_token_id=1, eos_token_id=98, projection_dim=24,
)  # fmt: skip


@pytest.mark.parametrize("eos", [98, 95, 2])
def test_clip_of_transformers_with_unlike_towers(tmp_path, eos):
    transformers = library("transformers")
    config = transformers.CLIPConfig(
        vision_config=VISION, text_config=TEXT | {"eos_token_id": eos}, projection_dim=24
    )
    theirs = moved(transformers.CLIPModel(config))
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        out = theirs(
            input_ids=torch.from_numpy(TOKENS).long(), pixel_values=to_torch(IMAGES)
        ).logits_per_image
    model, image, text, _ = features(tmp_path)
    scale = np.exp(2.0)
    check(scale * np.asarray(vp.clip.unit_norm(image) @ vp.clip.unit_norm(text).T), out)
    assert (model.config.vision.activation, model.config.text.activation) == ("gelu", "quick_gelu")


def test_config_dicts_override_as_transformers_does(tmp_path):
    transformers = library("transformers")
    config = transformers.CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=24)
    theirs = moved(transformers.CLIPModel(config))
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    written = json.loads(path.read_text())
    # Neither heads nor activation are repeated: the library's defaults hold, 12 and QuickGELU.
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "image_size", "patch_size")
    written["vision_config_dict"] = {k: VISION[k] for k in sizes}
    path.write_text(json.dumps(written))
    theirs = transformers.CLIPModel.from_pretrained(tmp_path).eval()
    assert theirs.config.vision_config.num_attention_heads == 12
    model, image, _, _ = features(tmp_path)
    assert (model.config.vision.heads, model.config.vision.activation) == (12, "quick_gelu")
    with torch.no_grad():
        check(image, theirs.visual_projection(theirs.vision_model(to_torch(IMAGES)).pooler_output))


@pytest.mark.parametrize(
    "name", ["CLIPVisionModelWithProjection", "CLIPVisionModel", "CLIPForImageClassification"]
)
def test_image_towers_of_transformers_alone(tmp_path, name):
    transformers = library("transformers")
    config = transformers.CLIPVisionConfig(**VISION)
    if name == "CLIPForImageClassification":
        config = transformers.CLIPConfig(vision_config=VISION, text_config=TEXT, num_labels=5)
    theirs = moved(getattr(transformers, name)(config))
    theirs.save_pretrained(tmp_path)
    model, image, _, logits = features(tmp_path)
    assert not model.config.has_text
    with torch.no_grad():
        out = theirs(pixel_values=to_torch(IMAGES))
    if name == "CLIPForImageClassification":
        check(logits, out.logits)
    else:
        check(image, out.image_embeds if name.endswith("Projection") else out.pooler_output)


def test_the_processor_that_version_5_writes(tmp_path):
    transformers = library("transformers")
    config = transformers.CLIPVisionConfig(**VISION)
    moved(transformers.CLIPVisionModelWithProjection(config)).save_pretrained(tmp_path)
    processor = transformers.CLIPImageProcessor(image_mean=[0.5] * 3, image_std=[0.25] * 3)
    processor.save_pretrained(tmp_path)
    assert vp.clip.load(tmp_path)[0].config.std == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("change", [{"qkv_bias": False}, {"hidden_act": "relu"}])
def test_a_vit_of_transformers_that_is_another_function_is_refused(tmp_path, change):
    transformers = library("transformers")
    keys = {k: v for k, v in VISION.items() if k != "projection_dim"} | change
    theirs = transformers.ViTForImageClassification(transformers.ViTConfig(**keys))
    theirs.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HALF))
    with pytest.raises(UserError, match=next(iter(change))):
        vp.clip.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"downsample_in_first_stage": True},
        {"downsample_in_bottleneck": True},
        {"hidden_act": "gelu"},
        {"layer_type": "basic"},
        {"num_channels": 1},
    ],
)
def test_a_resnet_of_transformers_that_is_another_function_is_refused(tmp_path, change):
    transformers = library("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[32, 64], depths=[1, 1], **change
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=next(iter(change))):
        vp.clip.load(tmp_path)


@pytest.mark.parametrize(
    "name, message",
    [
        ("CLIPTextModelWithProjection", "CLIPTextModelWithProjection, a text tower alone"),
        ("CLIPTextModel", "CLIPTextModel, a text tower alone"),
        ("ConvNextModel", "holds ConvNeXt"),
        ("DINOv3ConvNextModel", "holds a ConvNeXt of DINOv3"),
    ],
)
def test_other_towers_of_transformers_are_named(tmp_path, name, message):
    transformers = library("transformers")
    configs = {
        "ConvNextModel": lambda: transformers.ConvNextConfig(
            hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1]
        ),
        "DINOv3ConvNextModel": lambda: transformers.DINOv3ConvNextConfig(
            hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1]
        ),
    }
    config = configs.get(name, lambda: transformers.CLIPTextConfig(**TEXT))()
    getattr(transformers, name)(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        vp.clip.load(tmp_path)


# OpenCLIP

CHANGES = {
    "nothing": {},
    "wide heads": {"vision": {"head_width": 24}},
    "mean": {"vision": {"pool_type": "avg"}},
    "mean, norm after it": {"vision": {"pool_type": "avg", "final_ln_after_pool": True}},
    "class token, norm after it": {"vision": {"final_ln_after_pool": True}},
    "no ln_pre": {"vision": {"no_ln_pre": True}},
    "layer scale": {"vision": {"ls_init_value": 0.1}},
    "tanh": {"vision": {"act_kwargs": {"approximate": "tanh"}}},
    "eps": {"vision": {"norm_kwargs": {"eps": 1e-2}}, "text": {"norm_kwargs": {"eps": 1e-3}}},
    "perceptrons": {"vision": {"mlp_ratio": 2.5}, "text": {"mlp_ratio": 1.5}},
    "quick": {"quick_gelu": True},
    "not causal": {"text": {"no_causal_mask": True}},
    "end token": {"text": {"pool_type": "eos", "eos_id": 95}},
    "resnet": {"vision": {"layers": [1, 1, 2, 1], "width": 8, "head_width": 32}},
    "resnet of heads 64": {"vision": {"layers": [1, 2, 1, 1], "width": 8}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_open_clip_with_every_key_that_is_honoured(tmp_path, name):
    open_clip = library("open_clip")
    change = CHANGES[name]
    vision = dict(layers=2, width=48, head_width=16, patch_size=8, image_size=SIDE)
    vision |= change.get("vision", {})
    if isinstance(vision["layers"], list):
        del vision["patch_size"]
    text = dict(context_length=9, vocab_size=99, width=32, heads=4, layers=2)
    text |= change.get("text", {})
    model = dict(embed_dim=16, vision_cfg=vision, text_cfg=text)
    model["quick_gelu"] = change.get("quick_gelu", False)
    theirs = moved(open_clip.model.CLIP(**model))
    save(theirs, tmp_path / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    ours, image, got, _ = features(tmp_path)
    assert (ours.config.mean, ours.config.resize) == ((0.5, 0.5, 0.5), "squash")
    with torch.no_grad():
        check(image, theirs.encode_image(to_torch(IMAGES)))
        check(got, theirs.encode_text(torch.from_numpy(TOKENS).long()))


def save(model, path):
    from safetensors.torch import save_file

    state = {k: v.contiguous() for k, v in model.state_dict().items() if k != "attn_mask"}
    save_file(state, path)


# timm

VIT = dict(
    img_size=SIDE, patch_size=8, embed_dim=48, depth=2, num_heads=4, mlp_ratio=1.5, num_classes=5
)
TIMM = {
    "heads of the name": {"num_heads": None},
    "heads": {"num_heads": 6},
    "quick": {"act_layer": "quick_gelu"},
    "tanh": {"act_layer": "gelu_tanh"},
    "avg": {"global_pool": "avg"},
    "avg, norm before": {"global_pool": "avg", "fc_norm": False},
    "token, norm after": {"global_pool": "token", "fc_norm": True},
    "layer scale": {"init_values": 0.1},
    "silu": {"act_layer": "silu"},
    "registers": {"reg_tokens": 2},
    "registers and class without positions": {"reg_tokens": 2, "no_embed_class": True},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "no class token, norm before, no bias": {
        "class_token": False, "global_pool": "avg", "fc_norm": False, "qkv_bias": False,
    },
    "registers alone": {
        "class_token": False, "reg_tokens": 3, "no_embed_class": True, "global_pool": "avg",
    },
}  # fmt: skip
NAMED = {
    "deit3_small_patch16_224": {},
    "vit_small_patch14_dinov2": {},
    "vit_small_patch14_reg4_dinov2": {},
    "vit_giant_patch14_dinov2": {"num_heads": 4},
    "vit_giant_patch14_reg4_dinov2": {"num_heads": 4, "mlp_ratio": 3},
    "vit_medium_patch16_reg4_gap_256": {},
    "vit_medium_patch16_gap_256": {},
}


@pytest.mark.parametrize("name", TIMM)
def test_vit_of_timm_with_every_argument_that_is_honoured(tmp_path, name):
    create = library("timm").create_model
    arguments = {k: v for k, v in (VIT | TIMM[name]).items() if v is not None}
    theirs = moved(create("vit_tiny_patch16_224", **arguments))
    write_timm(theirs, "vit_tiny_patch16_224", arguments, tmp_path)
    _, image, _, logits = features(tmp_path)
    with torch.no_grad():
        out = theirs.forward_features(to_torch(IMAGES))
        check(image, theirs.forward_head(out, pre_logits=True))
        check(logits, theirs(to_torch(IMAGES)))


@pytest.mark.parametrize("name", NAMED)
def test_vit_of_timm_by_what_its_name_stands_for(tmp_path, name):
    """As the published files: nothing is said but the name and the sizes."""
    create = library("timm").create_model
    sizes = dict(img_size=48, patch_size=8, embed_dim=48, depth=2, num_classes=5)
    sizes |= dict(num_heads=6) | NAMED[name]
    theirs = moved(create(name, **sizes))
    write_timm(theirs, name, sizes, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"global_pool": theirs.global_pool}
    config["pretrained_cfg"]["input_size"] = [3, 48, 48]
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, variables = vp.clip.load(tmp_path)
    images = np.random.default_rng(0).normal(size=(2, 48, 48, 3)).astype(np.float32)
    image = model.apply(variables, images, method="encode_image")
    with torch.no_grad():
        out = theirs.forward_features(to_torch(images))
        check(image, theirs.forward_head(out, pre_logits=True))
        check(model.apply(variables, image, method="source_logits"), theirs(to_torch(images)))


def test_dinov2_in_metas_layout_is_what_timm_reads_in_it(tmp_path):
    """timm converts Meta's names as it loads them."""
    create = library("timm").create_model
    from safetensors.numpy import save_file
    from timm.models.vision_transformer import checkpoint_filter_fn

    tensors = {n: t.astype(np.float32) for n, t in meta().items()}
    save_file(tensors, tmp_path / "meta.safetensors")
    theirs = create(
        "vit_giant_patch14_reg4_dinov2", img_size=28, patch_size=7, embed_dim=32, depth=2,
        num_heads=4, mlp_ratio=3, reg_tokens=3, num_classes=0,
    ).eval()  # fmt: skip
    converted = {n: torch.from_numpy(t) for n, t in tensors.items()}
    theirs.load_state_dict(checkpoint_filter_fn(converted, theirs))
    clip, variables = vp.clip.load(tmp_path / "meta.safetensors", fields={"vision_heads": 4})
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(to_torch(IMAGES[:, :28, :28])), True)
    check(clip.apply(variables, IMAGES[:, :28, :28], method="encode_image"), expected)


def write_timm(model, architecture, arguments, folder):
    save(model, folder / "model.safetensors")
    config = {
        "architecture": architecture,
        "num_classes": 5,
        "global_pool": arguments.get("global_pool"),
        "model_args": arguments,
        "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, SIDE, SIDE]},
    }
    if config["global_pool"] is None:
        del config["global_pool"]
    (folder / "config.json").write_text(json.dumps(config))


REFUSED = {
    "qk_norm": {"qk_norm": True},
    "pre_norm": {"pre_norm": True},
    "global_pool": {"global_pool": "max"},
    "act_layer": {"act_layer": "relu"},
    "architecture": {"global_pool": "map"},  # by which only SigLIPs pool
    "pool_include_prefix": {"global_pool": "avg", "pool_include_prefix": True},
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_vit_of_timm_that_is_another_function_is_refused(tmp_path, name):
    create = library("timm").create_model
    arguments = VIT | REFUSED[name]
    theirs = create("vit_tiny_patch16_224", **arguments)
    write_timm(theirs, "vit_tiny_patch16_224", arguments, tmp_path)
    with pytest.raises(UserError, match=name):
        vp.clip.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"output_stride": 16},
        {"act_layer": "silu"},
        {"global_pool": "max"},
        {"aa_layer": "blurpool"},
        {"avg_down": True},
    ],
)
def test_resnet_of_timm(tmp_path, change):
    create = library("timm").create_model
    arguments = dict(layers=(1, 1, 1, 1), num_classes=5)
    theirs = moved(create("resnet50", **arguments))
    write_timm(theirs, "resnet50", arguments | change, tmp_path)
    if change:
        with pytest.raises(UserError, match=next(iter(change))):
            vp.clip.load(tmp_path)
        return
    _, image, _, logits = features(tmp_path)
    with torch.no_grad():
        out = theirs.forward_features(to_torch(IMAGES))
        check(image, theirs.forward_head(out, pre_logits=True))
        check(logits, theirs(to_torch(IMAGES)))


@pytest.mark.parametrize(
    "name, message",
    [
        ("eva02_tiny_patch14_224", "EVA"),
        ("vit_small_patch16_dinov3", "only config.json says which"),
        ("vit_small_patch16_dinov3_qkvb", "only config.json says which"),
    ],
)
def test_other_towers_of_timm_are_named(tmp_path, name, message):
    create = library("timm").create_model
    save(create(name, depth=1), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=message):
        vp.clip.load(tmp_path)
