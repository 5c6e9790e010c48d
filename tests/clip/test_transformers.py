"""Live against torch and transformers with random weights; needs the extra `parity`."""

import functools

import jax
import numpy as np
import pytest

import vprompt_jax as vp
from vprompt_jax.clip.checkpoints import positions

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

IMAGES = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)


def to_torch(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def relative_error(ours, theirs):
    theirs = theirs.detach().numpy()
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def randomised(model, seed=0):
    """Weights and statistics that leave nothing at 0 or 1, where mistakes could hide."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("logit_scale"):
            value.data.fill_(2.0)
        elif name.endswith("running_var") or ("norm" in name and name.endswith("weight")):
            value.data.uniform_(0.5, 1.5, generator=generator)
        elif value.is_floating_point():
            scale = value[0].numel() ** -0.5 if value.ndim > 1 else 0.2
            value.data.normal_(0, scale, generator=generator)
    return model.eval()


@functools.partial(jax.jit, static_argnums=0)
def supervised_outputs(model, variables, images):
    features = model.apply(variables, images, method="encode_image")
    return features, model.apply(variables, features, method="source_logits")


@pytest.fixture(scope="module")
def quick_clip(tmp_path_factory):
    """A CLIP with QuickGELU, and its folder in transformers' layout."""
    small = dict(num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    config = transformers.CLIPConfig(
        text_config=dict(hidden_size=32, vocab_size=64, max_position_embeddings=12, eos_token_id=63)
        | small,
        vision_config=dict(hidden_size=48, image_size=64, patch_size=16) | small,
        projection_dim=24,
    )
    model = randomised(transformers.CLIPModel(config))
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    return model, folder


def test_clip_with_quickgelu(quick_clip):
    theirs, folder = quick_clip
    clip, variables = vp.clip.load(folder)
    assert clip.config.vision.activation == "quick_gelu"
    tokens = np.random.default_rng(1).integers(1, 60, (3, 12)).astype(np.int32)
    tokens[:, 7] = 63
    with torch.no_grad():
        out = theirs(input_ids=torch.from_numpy(tokens).long(), pixel_values=to_torch(IMAGES))
    logits = jax.jit(clip.apply)(variables, IMAGES, tokens)
    assert relative_error(logits, out.logits_per_image) < 1e-4


@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_model_bin_holds_the_same(quick_clip, tmp_path, zipped):
    theirs, folder = quick_clip
    _, expected = vp.clip.load(folder)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    path = tmp_path / "pytorch_model.bin"
    torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=zipped)
    _, variables = vp.clip.load(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    # A training checkpoint of the same weights: optimiser state aside, "module." off.
    wrapped = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    training = {"epoch": 3, "optimizer": {"m": [torch.ones(2)]}, "state_dict": wrapped}
    torch.save(training, path, _use_new_zipfile_serialization=zipped)
    _, variables = vp.clip.load(path)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_vit_with_tanh_gelu(tmp_path):
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
        image_size=64, patch_size=16, num_labels=5, hidden_act="gelu_new",
    )  # fmt: skip
    theirs = randomised(transformers.ViTForImageClassification(config))
    theirs.save_pretrained(tmp_path)
    stats = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    model, variables = vp.clip.load(tmp_path, fields=stats)
    with torch.no_grad():
        logits = theirs(to_torch(IMAGES)).logits
    assert relative_error(supervised_outputs(model, variables, IMAGES)[1], logits) < 1e-4


def test_resnet_of_hugging_face(tmp_path):
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[32, 64, 128], depths=[1, 2, 2], num_labels=4
    )
    theirs = randomised(transformers.ResNetForImageClassification(config))
    theirs.save_pretrained(tmp_path)
    model, variables = vp.clip.load(tmp_path)
    with torch.no_grad():
        features = theirs.resnet(to_torch(IMAGES)).pooler_output[:, :, 0, 0]
        logits = theirs(to_torch(IMAGES)).logits
    ours = supervised_outputs(model, variables, IMAGES)
    assert relative_error(ours[0], features) < 1e-4
    assert relative_error(ours[1], logits) < 1e-4


class Bottleneck(torch.nn.Module):
    """torchvision's block, in its names: the stride is the 3x3 convolution's."""

    def __init__(self, inside, planes, stride):
        super().__init__()
        conv = functools.partial(torch.nn.Conv2d, bias=False)
        self.conv1, self.bn1 = conv(inside, planes, 1), torch.nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3, stride=stride, padding=1)
        self.bn2 = torch.nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = conv(planes, 4 * planes, 1), torch.nn.BatchNorm2d(4 * planes)
        self.downsample = None
        if inside != 4 * planes:
            self.downsample = torch.nn.Sequential(
                conv(inside, 4 * planes, 1, stride=stride), torch.nn.BatchNorm2d(4 * planes)
            )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(torch.nn.Module):
    def __init__(self, width, counts, classes):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.maxpool = torch.nn.MaxPool2d(3, 2, 1)
        inside = width
        for stage, blocks in enumerate(counts):
            planes = width * 2**stage
            layer = []
            for i in range(blocks):
                layer.append(Bottleneck(inside, planes, 2 if stage and not i else 1))
                inside = 4 * planes
            self.add_module(f"layer{stage + 1}", torch.nn.Sequential(*layer))
        self.fc = torch.nn.Linear(inside, classes)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}", torch.nn.Identity())(x)
        return self.fc(x.mean(dim=(2, 3)))


def test_resnet_of_torchvision(tmp_path):
    theirs = randomised(ResNet(8, (1, 2, 1), 6))
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    model, variables = vp.clip.load(tmp_path / "resnet.pth")
    assert model.config.mean == (0.485, 0.456, 0.406)
    with torch.no_grad():
        logits = theirs(to_torch(IMAGES))
    assert relative_error(supervised_outputs(model, variables, IMAGES)[1], logits) < 1e-4


@pytest.mark.parametrize("side", [4, 7, 12])
def test_positions_are_interpolated_as_torch_does(side):
    table = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    grid = torch.from_numpy(table[1:].reshape(1, 7, 7, 6).transpose(0, 3, 1, 2))
    theirs = torch.nn.functional.interpolate(
        grid, size=(side, side), mode="bicubic", antialias=True, align_corners=False
    )
    ours = positions.interpolate(table, 7, side)
    np.testing.assert_array_equal(ours[0], table[0])
    assert relative_error(ours[1:], theirs[0].permute(1, 2, 0).reshape(side * side, 6)) < 1e-5
