"""`load`: a checkpoint file, or a name of the embedded zoo -> a CLIP and its weights."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import traverse_util

from vprompt_jax.clip import formats, openai
from vprompt_jax.clip.model import CLIP
from vprompt_jax.clip.variants import ACTIVATIONS, CLIPConfig
from vprompt_jax.errors import UserError

ZOO = Path(__file__).parent.parent / "zoo"


def variable_shapes(config: CLIPConfig) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shape of every variable of the model, by path; nothing is computed."""
    images = jax.ShapeDtypeStruct(
        (1, config.image_resolution, config.image_resolution, 3), jnp.float32
    )
    tokens = jax.ShapeDtypeStruct((1, config.context_length), jnp.int32)
    tree = jax.eval_shape(CLIP(config).init, jax.random.key(0), images, tokens)
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree).items()}


def _resolve(path_or_name: str | Path) -> Path:
    path = Path(path_or_name).expanduser()
    if path.exists():
        return path
    embedded = ZOO / f"{path_or_name}.safetensors"
    if embedded.parent == ZOO and embedded.is_file():
        return embedded
    names = ", ".join(sorted(p.stem for p in ZOO.glob("*.safetensors")))
    raise UserError(
        f"no checkpoint {str(path_or_name)!r}: give the path of a file (.safetensors, or .pt as "
        f"OpenAI publishes it), or an embedded model ({names})"
    )


def _fitting(path: Path, convert: Callable, *args):
    """Tensors of any names and shapes can come in: those that do not fit are the user's matter."""
    try:
        return convert(*args)
    except UserError:
        raise
    except Exception as error:  # of NumPy's, Flax's and Python's, according to what is wrong
        reason = (str(error) or repr(error)).splitlines()[0]
        raise UserError(f"the tensors in {path} do not make up a CLIP: {reason}") from error


def load(
    path_or_name: str | Path,
    *,
    activation: str | None = None,
    dtype: jnp.dtype = jnp.float32,
) -> tuple[CLIP, dict]:
    """Loads a CLIP.

    Args:
      path_or_name: a checkpoint file with OpenAI's names (safetensors, `torch.save` state dict,
        TorchScript archive), or the name of an embedded model ("mini-clip-rn"). The variant is
        read off the tensor shapes; a `.json` beside the file with a "clip" object says more.
      activation: "quick_gelu" or "gelu", over what the checkpoint says.
      dtype: of the computation and of the weights; normalisation stays float32.

    Returns:
      The module and its variables (NumPy arrays, nested as Flax does).

    Raises:
      UserError: if the checkpoint cannot be read or does not fit.
    """
    if activation is not None and activation not in ACTIVATIONS:
        raise UserError(f"activation={activation!r}: choose one of {', '.join(ACTIVATIONS)}")
    path = _resolve(path_or_name)
    tensors = formats.read_state_dict(path)
    beside = path.with_suffix(".json")
    if beside.is_file():
        try:
            config = CLIPConfig.from_json(formats.read_json(beside)["clip"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{beside} does not describe a CLIP ({error!r})") from error
    else:
        config = _fitting(path, openai.config_from_state_dict, tensors)
        if activation is None:
            logging.warning(
                "%s has OpenAI's names and no config beside it: loaded with QuickGELU "
                "(pass activation='gelu' if it was trained with exact GELU).", path.name,
            )  # fmt: skip
    if activation is not None:
        config = dataclasses.replace(config, activation=activation)

    shapes = _fitting(path, variable_shapes, config)
    flat = _fitting(path, openai.to_variables, tensors, shapes)
    for name, array in flat.items():
        # Vectors (norms, biases, class embedding) are tiny and normalisation wants full precision.
        flat[name] = np.asarray(array, np.float32 if array.ndim < 2 else dtype)
    return CLIP(config, dtype), traverse_util.unflatten_dict(flat)
