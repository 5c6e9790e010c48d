"""Pretrains a mini CLIP: `python -m vprompt_jax.zoo.pretrain --photos FOLDER --workdir DIR`.

The images are photographs in a folder of classes, and digits and letters rendered in matplotlib's
fonts (`zoo.glyphs`). The captions are the classes' names, their synonyms and broader words
(`zoo.words`). The image tower comes first, then the text tower (`zoo.steps`); a second image tower
takes the text tower of the first. Nothing else than flips, small moves and, for the glyphs, blur
and brightness distorts the images: a CLIP that has seen noise would not mind a prompt that starts
as noise.

Started again with the same workdir, a run continues from its last save.
"""

import argparse
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization, traverse_util

from vprompt_jax.clip.checkpoints import formats, openai
from vprompt_jax.clip.checkpoints.load import load
from vprompt_jax.clip.config import CLIPConfig
from vprompt_jax.clip.model import CLIP, unit_norm
from vprompt_jax.clip.preprocess import normalize
from vprompt_jax.clip.tokenizer import tokenize
from vprompt_jax.process.errors import UserError
from vprompt_jax.zoo import captions, glyphs, images, steps, words
from vprompt_jax.zoo.recipe import RECIPES, TOWERS, Recipe
from vprompt_jax.zoo.steps import State, Step

TEXT = "mini-clip-text"  # the file of the text tower that all mini CLIPs share
LICENCE = "Apache-2.0"
Say = Callable[[State], dict[str, float]]


def zero_shot_vectors(
    config: CLIPConfig, variables: dict[str, Any], names: Sequence[str]
) -> jax.Array:
    """Unit text features [n, E] of "This is a photo of a {}" for names."""
    texts = [captions.TEMPLATES[0].format(name) for name in names]
    tokens = tokenize(texts, config.require_text().context_length)
    features: Any = CLIP(config).apply(variables, tokens, method="encode_text")
    return unit_norm(features)


@functools.partial(jax.jit, static_argnums=0)
def _correct(
    config: CLIPConfig, variables: Any, x: jax.Array, y: jax.Array, classes: jax.Array
) -> jax.Array:
    features: Any = CLIP(config).apply(variables, normalize(x), method="encode_image")
    return ((features @ classes.T).argmax(-1) == y).sum()


def accuracy(
    config: CLIPConfig, variables: dict[str, Any], classes: jax.Array, data: images.Labelled
) -> float:
    """Share of images whose features are nearest to their own class's vector [C, E]."""
    size, total = 500, len(data.labels)
    parts = [
        _correct(config, variables, data.images[i : i + size], data.labels[i : i + size], classes)
        for i in range(0, total, size)
    ]
    return float(sum(map(int, parts)) / total)


def export(
    variables: dict[str, Any], folder: Path, name: str, used: np.ndarray, notes: dict[str, Any]
) -> None:
    """Writes a model in float16 under OpenAI's names: image tower and scale, text tower, an index.

    Args:
      variables: the model's.
      folder: where the files go.
      name: of the image tower's file; the text tower's is `TEXT`.
      used: token ids of any caption; the rows of the others, still random, become zero.
      notes: what the JSON beside the files says.
    """
    flat = {k: np.asarray(v) for k, v in traverse_util.flatten_dict(variables).items()}
    rows = flat["params", "text", "token_embedding", "embedding"]
    flat["params", "text", "token_embedding", "embedding"] = np.zeros_like(rows)
    flat["params", "text", "token_embedding", "embedding"][used] = rows[used]
    tensors = {k: v.astype(np.float16) for k, v in openai.to_state_dict(flat).items()}
    places = {k: name if k.startswith(("visual.", "logit_scale")) else TEXT for k in tensors}
    for file in (name, TEXT):
        own = {k: v for k, v in tensors.items() if places[k] == file}
        formats.write_safetensors(folder / f"{file}.safetensors", own, {"license": LICENCE})
    index = {"weight_map": {k: f"{file}.safetensors" for k, file in sorted(places.items())}}
    (folder / f"{name}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / f"{name}.json").write_text(json.dumps(notes, indent=2) + "\n")


def _trained(step: Step, state: State, count: int, saved: Path, every: int, say: Say) -> State:
    """Takes `count` steps in all, from the last save if there is one, and saves now and then."""
    if saved.exists():
        state = serialization.from_bytes(state, saved.read_bytes())
        state = jax.tree.map(jnp.asarray, state)
    for i in range(int(state["step"]), count):
        state, shown = step(state)
        if (i + 1) % every == 0 or i + 1 == count:
            numbers = {k: float(v) for k, v in shown.items()} | say(state)
            line = ", ".join(f"{k} {v:.3f}" for k, v in numbers.items())
            print(f"{saved.stem} step {i + 1}/{count}: {line}", flush=True)
            partial = saved.with_suffix(".part")
            partial.write_bytes(serialization.to_bytes(jax.device_get(state)))
            partial.replace(saved)
    return state


def _fixed_classes(clip: CLIP, variables: Any, texts: captions.Captions) -> jax.Array:
    """Where a text tower puts the classes: the mean of the unit features of their captions."""
    encode = jax.jit(functools.partial(clip.apply, method="encode_text"))
    rows: list[Any] = [unit_norm(encode(variables, tokens)) for tokens in texts.classes]
    return unit_norm(jnp.stack([row.mean(0) for row in rows]))


def pretrain(recipe: Recipe, photos: Path, workdir: Path, name: str, save_every: int = 250) -> None:
    """Trains, continuing from `workdir`'s last save, and exports the model into `workdir`."""
    workdir.mkdir(parents=True, exist_ok=True)
    started = time.time()
    seen = images.photographs(photos)
    drawn = images.renderings(
        workdir / "train.npz", recipe.renderings, recipe.seed + 1, glyphs.TRAIN_FONTS
    )
    unseen_glyphs = images.renderings(
        workdir / "unseen.npz", images.UNSEEN_RENDERINGS, recipe.seed + 2, glyphs.HELD_OUT_FONTS
    )
    texts = captions.build(seen.classes, recipe.config.require_text().context_length)
    print(
        f"{len(seen.train.labels):,} photographs of {len(seen.classes)} classes, "
        f"{len(drawn.labels):,} renderings and {len(texts.words):,} words ready after "
        f"{time.time() - started:.0f} s",
        flush=True,
    )
    first_glyph = len(seen.classes)

    def measured(state: State, vectors: jax.Array) -> dict[str, float]:
        variables = {"params": state["params"], "batch_stats": state["batch_stats"]}
        of_photos, of_glyphs = vectors[:first_glyph], vectors[first_glyph:]
        return {
            "unseen photographs": accuracy(recipe.config, variables, of_photos, seen.unseen),
            "unseen renderings": accuracy(recipe.config, variables, of_glyphs, unseen_glyphs),
            "scale": float(jnp.exp(state["params"]["logit_scale"])),
            "seconds": time.time() - started,
        }

    fixed, text = None, None
    if recipe.text_from:
        other, variables = load(recipe.text_from)
        fixed, text = _fixed_classes(other, variables, texts), variables["params"]["text"]

    def classes_of(state: State) -> jax.Array:
        return unit_norm(state["params"]["classes"]) if fixed is None else fixed

    state = _trained(
        steps.image_step(recipe, seen.train, drawn, fixed),
        steps.image_state(recipe, len(texts.classes), fixed),
        recipe.steps, workdir / "image.msgpack", save_every,
        lambda state: measured(state, classes_of(state)),
    )  # fmt: skip
    if text is None:
        text = _trained(
            steps.text_step(recipe, texts, np.asarray(classes_of(state))), steps.text_state(recipe),
            recipe.text_steps, workdir / "text.msgpack", save_every,
            lambda _: {"seconds": time.time() - started},
        )["params"]  # fmt: skip
    params = {k: v for k, v in state["params"].items() if k != "classes"} | {"text": text}
    variables = {"params": params, "batch_stats": state["batch_stats"]}
    names = [words.names_of(c)[0] for c in seen.classes] + list(glyphs.CLASSES)
    by_name = zero_shot_vectors(recipe.config, variables, names)
    notes = dict(
        clip=dataclasses.asdict(recipe.config),
        licence=LICENCE,
        recipe=dataclasses.asdict(recipe),
        # Of zero-shot classification by the classes' names.
        accuracy={
            k.replace(" ", "_"): v for k, v in measured(state, by_name).items() if "unseen" in k
        },
        photograph_classes=list(seen.classes),
        glyphs=list(glyphs.CLASSES),
        training_fonts=list(glyphs.TRAIN_FONTS),
        held_out_fonts=list(glyphs.HELD_OUT_FONTS),
        command=(
            "python -m vprompt_jax.zoo.pretrain --photos FOLDER --workdir DIR "
            f"--tower {recipe.tower} --steps {recipe.steps} --renderings {recipe.renderings}"
        ),
    )
    used = np.unique(np.concatenate([texts.classes.ravel(), texts.words.ravel()]))
    export(variables, workdir, name, used, notes)
    print(f"wrote {workdir / name}.safetensors: {notes['accuracy']}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretrain a mini CLIP on photographs and glyphs.")
    parser.add_argument("--photos", type=Path, required=True, help="folder with one per class")
    parser.add_argument("--workdir", type=Path, required=True, help="renderings, saves and result")
    parser.add_argument("--tower", choices=TOWERS, default=Recipe.tower)
    parser.add_argument("--steps", type=int, help="default: that of the tower's recipe")
    parser.add_argument("--renderings", type=int, default=Recipe.renderings, help="to train on")
    parser.add_argument("--text_from", help="a CLIP whose text tower is taken over, frozen")
    parser.add_argument("--name", help="file name of the result; default: mini-clip-TOWER")
    args = parser.parse_args()
    try:
        recipe = Recipe(tower=args.tower, renderings=args.renderings, **RECIPES[args.tower])
        given = {k: v for k in ("steps", "text_from") if (v := getattr(args, k)) is not None}
        recipe = dataclasses.replace(recipe, **given)
        pretrain(recipe, args.photos, args.workdir, args.name or f"mini-clip-{args.tower}")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
