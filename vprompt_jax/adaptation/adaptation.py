"""What is needed to apply an adapted CLIP: config, model, frozen weights, texts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax import clip as clip_lib
from vprompt_jax.adaptation.build import build, parts_of
from vprompt_jax.adaptation.model import AdaptedCLIP, Built
from vprompt_jax.adaptation.variables import for_inference, variables_of
from vprompt_jax.clip.class_texts import (
    class_texts,
    encode_texts,
    of_classes,
    tokens_of,
    unlearned,
    without_padding,
)
from vprompt_jax.clip.model import CLIP, image_tower_alone
from vprompt_jax.clip.vocabularies import missing
from vprompt_jax.config import Config
from vprompt_jax.heads import text as text_head
from vprompt_jax.parts import Assignment, SelectedWeights, keys
from vprompt_jax.process import finite, hashes, parallel


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """An adapted CLIP without its trained parameters.

    Attributes:
      config: of the run.
      model: the CLIP with its parts.
      weights: parts that replace some of the tower's weights, by name.
      assignment: what a part assigns rather than trains; None if none does.
      arrays: those that a part's solver finds, as they are before it, by part and by name.
      frozen: the model's frozen variables, a copy on every device.
      class_names: C names.
      texts: the text templates that the class names are put into.
      facts: what is said of the parts in `result.json`.
      weights_hash: SHA-256 of the checkpoint's weights.
      unlearned: class names that the text tower has never seen a part of.
    """

    config: Config
    model: AdaptedCLIP
    weights: Mapping[str, SelectedWeights]
    assignment: Assignment | None
    arrays: Mapping[str, Mapping[str, np.ndarray]]
    frozen: Mapping[str, Any]
    class_names: tuple[str, ...]
    texts: tuple[str, ...]
    facts: Mapping[str, Any]
    weights_hash: str
    unlearned: tuple[str, ...] = ()

    @property
    def zero_shot(self) -> AdaptedCLIP:
        """The same CLIP with its text head and nothing that is trained."""
        return self.model.clone(parts=(Built(text_head.PART.name, "head", text_head.TextHead()),))

    def initial_params(self) -> dict[str, Any]:
        """Fresh parameters of the trained parts, by name."""
        key = jax.jit(_key)(self.config.seed)
        # As one program: by itself, each operation would be one to compile.
        params = jax.jit(self.model.init_parts)(key)
        for part in self.model.built("text"):
            embedding = self.frozen["params"]["clip"]["text"]["token_embedding"]["embedding"]
            params[part.name] = part.module.initial(params[part.name], embedding)
        tower = self.frozen["params"]["clip"]["visual"]
        return params | {name: part.initial(tower, key) for name, part in self.weights.items()}

    def initial_assigned(self) -> dict[str, np.ndarray]:
        """What is assigned, or a solver finds, as it is before training, by name."""
        initial = self.assignment.initial(self.config.seed) if self.assignment else {}
        return initial | {k: v for arrays in self.arrays.values() for k, v in arrays.items()}

    def variables(self, params: Mapping[str, Any], assigned: Mapping[str, Any]) -> dict[str, Any]:
        """All variables of `model`, from trained parameters and assigned arrays."""
        return variables_of(params, assigned, self.frozen, self.weights)

    def at_inference(
        self, params: Mapping[str, Any], assigned: Mapping[str, Any]
    ) -> tuple[AdaptedCLIP, dict[str, Any]]:
        """The model and all its variables as inference needs them: with class texts encoded."""
        with jax.default_matmul_precision(self.config.model.matmul_precision):
            params, frozen = for_inference(self.model, params, self.frozen, self.weights)
        variables = variables_of(params, assigned, frozen, self.weights)
        model = self.model.at_inference()
        clip = variables["params"]["clip"]
        if not model.has("text"):
            clip = {k: v for k, v in clip.items() if k != "text"}
        used = {part.name for part in model.parts}
        trees = {k: v for k, v in variables["params"].items() if k in used}
        return model, {**variables, "params": {"clip": clip, **trees}}


def _key(seed: int) -> jax.Array:
    return keys.stream(keys.root(seed), "init")


def load_clip(config: Config) -> tuple[CLIP, dict[str, Any]]:
    """The CLIP of a config and its variables, as `clip.load` gives them.

    A linear head needs no class texts: where the text tower's vocabulary is not at hand, the tower
    is left out.
    """
    clip, variables = clip_lib.load(
        config.model.checkpoint,
        activation=config.model.activation,
        dtype=jnp.dtype(config.model.dtype),
    )
    text = clip.config.text
    needed = any(part.reads_texts for part in parts_of(config.parts))
    if text is not None and not needed and missing(text, clip.vocabulary):
        return image_tower_alone(clip, variables)
    return clip, variables


def adapt(
    config: Config,
    clip: CLIP,
    variables: Mapping[str, Any],
    class_names: Sequence[str],
    texts: Sequence[str],
) -> Adaptation:
    """Puts a config's parts around and inside of a CLIP.

    Unless a part acts on the text side, the class texts are encoded here, once, and the text tower
    takes no further part.

    Args:
      config: of the run.
      clip: the frozen CLIP.
      variables: its variables.
      class_names: C names.
      texts: text templates for them.

    Raises:
      UserError: if a part does not fit the tower, a text is too long for it, or the embedding of
        one is not finite.
    """
    built = build(config, clip, variables, len(class_names), len(texts))
    learns_texts = built.model.has("text")
    used = {k: v for k, v in variables["params"].items() if k != "text" or learns_texts}
    constants: dict[str, np.ndarray] = {}
    unknown: list[str] = []
    if clip.config.has_text:
        sentences = class_texts(class_names, texts)
        with jax.default_matmul_precision(config.model.matmul_precision):
            embeddings = encode_texts(clip, variables, sentences)
            constants["text_features"] = np.asarray(of_classes(embeddings))
        with finite.explained("the class texts", variables):
            finite.check("their embeddings", constants["text_features"])
        if built.maps_texts:
            by_template = np.asarray(embeddings).swapaxes(0, 1)
            constants["source_texts"] = by_template.reshape(-1, by_template.shape[-1])
        unknown = unlearned(clip, variables, class_names)
        if learns_texts:
            for part in built.model.built("text"):
                sentences = part.module.texts(class_names, sentences)
            tokens = tokens_of(clip, sentences)
            constants["text_tokens"] = without_padding(tokens, clip.config.require_text())
    frozen = {"params": {"clip": used}, "constants": constants}
    if "batch_stats" in variables:
        frozen["batch_stats"] = {"clip": variables["batch_stats"]}
    return Adaptation(
        config=config,
        model=built.model,
        weights=built.weights,
        assignment=built.assignment,
        arrays=built.arrays,
        frozen=jax.device_put(frozen, parallel.replicated()),
        class_names=tuple(class_names),
        texts=tuple(texts),
        facts=built.facts,
        weights_hash=hashes.of_arrays(variables),
        unlearned=tuple(unknown),
    )
