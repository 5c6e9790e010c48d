"""OpenAI's names and layouts: a rename table that serves loading and exporting alike."""

import re

import numpy as np

from vprompt_jax.clip.formats import StateDict
from vprompt_jax.clip.variants import CLIPConfig
from vprompt_jax.errors import UserError

# Our dotted name -> OpenAI's, applied in order to every name.
_RENAMES = (
    (r"^text\.resblocks_(\d+)", r"transformer.resblocks.\1"),
    (r"^text\.", r""),
    (r"^visual\.resblocks_(\d+)", r"visual.transformer.resblocks.\1"),
    (r"layer(\d+)_(\d+)\.downsample_conv\.", r"layer\1.\2.downsample.0."),
    (r"layer(\d+)_(\d+)\.downsample_bn\.", r"layer\1.\2.downsample.1."),
    (r"layer(\d+)_(\d+)\.", r"layer\1.\2."),
    (r"\.in_proj\.kernel$", r".in_proj_weight"),
    (r"\.in_proj\.bias$", r".in_proj_bias"),
    (r"\.mean$", r".running_mean"),
    (r"\.var$", r".running_var"),
    (r"\.(kernel|scale|embedding)$", r".weight"),
)
# In some files; not parameters.
_IGNORED = re.compile(r"num_batches_tracked$|^(input_resolution|context_length|vocab_size)$")

Path = tuple[str, ...]


def _openai_name(path: Path) -> str:
    name = ".".join(path)
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _from_torch(path: Path, array: np.ndarray) -> np.ndarray:
    """Kernels are [in, out] (1x1 convolutions, too) and [h, w, in, out] here; `proj` and
    embeddings are as in torch."""
    if path[-1] != "kernel":
        return array
    if array.ndim == 4 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    return array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)


def _to_torch(path: Path, array: np.ndarray) -> np.ndarray:
    if path[-1] != "kernel":
        return array
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T[:, :, None, None] if "conv" in path[-2] else array.T


def config_from_state_dict(tensors: StateDict) -> CLIPConfig:
    """Reads the architecture off the tensor shapes.

    Head counts follow OpenAI's rule, 64 channels a head; the activation is QuickGELU. What a
    checkpoint does differently, the config beside it says.

    Raises:
      UserError: if the names are not OpenAI's.
    """

    def shape(name):
        if name not in tensors:
            raise UserError(
                f"not a CLIP checkpoint with OpenAI's names: {name} is missing "
                f"(it holds {', '.join(sorted(tensors)[:4])}, ...)"
            )
        return tensors[name].shape

    def count(pattern):
        numbers = [int(m[1]) for name in tensors if (m := re.match(pattern, name))]
        return max(numbers, default=-1) + 1

    embed_dim = shape("text_projection")[1]
    context_length, text_width = shape("positional_embedding")
    if "visual.proj" in tensors:
        vision_width, _, _, patch = shape("visual.conv1.weight")
        grid = round((shape("visual.positional_embedding")[0] - 1) ** 0.5)
        vision = dict(
            vision_layers=count(r"visual\.transformer\.resblocks\.(\d+)\."),
            vision_patch_size=patch,
            image_resolution=grid * patch,
            vision_heads=vision_width // 64,
        )
    else:
        vision_width = shape("visual.conv3.weight")[0]
        stages = count(r"visual\.layer(\d+)\.") - 1
        grid = round((shape("visual.attnpool.positional_embedding")[0] - 1) ** 0.5)
        vision = dict(
            vision_layers=tuple(
                count(rf"visual\.layer{stage}\.(\d+)\.") for stage in range(1, stages + 1)
            ),
            vision_patch_size=None,
            image_resolution=grid * 2 ** (stages + 1),
            vision_heads=shape("visual.attnpool.q_proj.weight")[0] // 64,
        )
    return CLIPConfig(
        embed_dim=embed_dim,
        vision_width=vision_width,
        context_length=context_length,
        vocab_size=shape("token_embedding.weight")[0],
        text_width=text_width,
        text_heads=text_width // 64,
        text_layers=count(r"transformer\.resblocks\.(\d+)\."),
        **vision,
    )


def to_variables(
    tensors: StateDict, expected: dict[Path, tuple[int, ...]]
) -> dict[Path, np.ndarray]:
    """Takes every expected array from an OpenAI-named state dict.

    Args:
      tensors: the file's arrays.
      expected: our path, collection first ("params", "visual", ...) -> shape.

    Raises:
      UserError: if names are missing or left over, or a shape differs; all are listed.
    """
    left = {name for name in tensors if not _IGNORED.search(name)}
    result, problems = {}, []
    for path, shape in expected.items():
        name = _openai_name(path[1:])
        if name not in tensors:
            problems.append(f"- {name} is missing")
            continue
        left.discard(name)
        array = _from_torch(path, tensors[name])
        if array.shape != shape:
            problems.append(f"! {name} has shape {array.shape}, the model needs {shape}")
        result[path] = array
    problems += [f"+ {name} is not part of the model" for name in sorted(left)]
    if problems:
        listed = "\n  ".join(problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise UserError(f"the checkpoint does not fit the model:\n  {listed}{more}")
    return result


def to_state_dict(variables: dict[Path, np.ndarray]) -> StateDict:
    """The inverse of `to_variables`: our flat variables -> OpenAI's names and layouts."""
    return {_openai_name(p[1:]): _to_torch(p, np.asarray(a)) for p, a in variables.items()}
