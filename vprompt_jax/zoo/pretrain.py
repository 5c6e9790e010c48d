"""Pretrains the embedded mini CLIP: `python -m vprompt_jax.zoo.pretrain --workdir DIR`.

Images of digits and letters are rendered from matplotlib's fonts (`zoo.glyphs`). An image tower and
a text tower learn together which caption belongs to which image. The loss is the cross-entropy over
the captions of all classes, with one random caption per class and step.

Label smoothing, a fixed moderate logit scale and strong noise on the images keep the model from
saturating. A saturated small CLIP is over-confident, and unlike a large one it fails at once when a
prompt is added.

Started again with the same workdir, a run continues from its last save.
"""

import argparse
import dataclasses
import functools
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization, traverse_util

from vprompt_jax.clip.checkpoints import formats, openai
from vprompt_jax.clip.checkpoints.load import load
from vprompt_jax.clip.config import CLIPConfig
from vprompt_jax.clip.model import CLIP, unit_norm
from vprompt_jax.clip.preprocess import normalize
from vprompt_jax.clip.tokenizer import tokenize
from vprompt_jax.process.errors import UserError
from vprompt_jax.zoo import glyphs
from vprompt_jax.zoo.recipe import RECIPES, TOWERS, Recipe, augment, plain


def _captions() -> np.ndarray:
    """Token ids int32 [classes, captions, T]; shorter lists of captions repeat."""
    texts = [glyphs.captions(g) for g in glyphs.CLASSES]
    count = max(map(len, texts))
    rows = [(t * math.ceil(count / len(t)))[:count] for t in texts]
    tokens = [tokenize(r, TOWERS["rn"].require_text().context_length) for r in rows]
    return np.stack(tokens)


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, recipe.learning_rate, int(recipe.warmup_fraction * recipe.steps), recipe.steps
    )
    decayed = functools.partial(jax.tree.map, lambda p: p.ndim >= 2)
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, weight_decay=recipe.weight_decay, mask=decayed),
    )


def make_step(
    recipe: Recipe, images: jax.Array, labels: jax.Array, captions: jax.Array
) -> Callable[[dict[str, Any]], tuple[dict[str, Any], tuple[jax.Array, jax.Array]]]:
    """Compiles the train step; the renderings, a few megabytes, stay on the device."""
    model = CLIP(recipe.config, train=True)
    keeps_text = bool(recipe.text_from)
    optimizer = _optimizer(recipe)

    def loss_of(
        params: Any, batch_stats: Any, x: jax.Array, y: jax.Array, tokens: jax.Array
    ) -> tuple[jax.Array, tuple[Any, jax.Array]]:
        variables = {"params": params, "batch_stats": batch_stats}
        applied: Any = model.apply(variables, x, method="encode_image", mutable=["batch_stats"])
        features, updated = applied
        texts: Any = model.apply(variables, tokens, method="encode_text")
        texts = jax.lax.stop_gradient(texts) if keeps_text else texts
        own, other = jnp.split(unit_norm(texts), 2)
        # Captions also have to find another caption of their class. Otherwise the text tower would
        # give all classes the same embedding before the image tower has learned anything, and
        # would never recover.
        rows = jnp.concatenate([unit_norm(features), other])
        targets = jnp.concatenate([y, jnp.arange(len(own))])
        logits = recipe.logit_scale * rows @ own.T
        targets = optax.smooth_labels(jax.nn.one_hot(targets, len(own)), recipe.label_smoothing)
        losses = optax.softmax_cross_entropy(logits, targets)
        loss = losses[: len(y)].mean() + losses[len(y) :].mean()
        stats = updated.get("batch_stats", {})
        return loss, (stats, (logits[: len(y)].argmax(-1) == y).mean())

    @functools.partial(jax.jit, donate_argnums=0)
    def step(
        state: dict[str, Any], images: jax.Array, labels: jax.Array, captions: jax.Array
    ) -> tuple[dict[str, Any], tuple[jax.Array, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(recipe.seed), state["step"])
        pick, noise, text = jax.random.split(key, 3)
        at = jax.random.randint(pick, (recipe.batch,), 0, len(labels))
        classes, count = captions.shape[:2]
        chosen = jax.random.randint(text, (2, classes), 0, count)
        tokens = captions[jnp.arange(classes), chosen].reshape(2 * classes, -1)
        scenes, strength = recipe.stage(state["step"])
        x = normalize(images[at])
        if recipe.plain_fraction:
            start = plain(x)
            x = start + scenes * (x - start)
        x = augment(noise, x, strength, recipe)
        (loss, (stats, accuracy)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            state["params"], state["batch_stats"], x, labels[at], tokens
        )
        updates, opt_state = optimizer.update(gradient, state["opt_state"], state["params"])
        if keeps_text:  # not even weight decay may move it
            updates = {**updates, "text": jax.tree.map(jnp.zeros_like, updates["text"])}
        new = dict(
            step=state["step"] + 1,
            params=optax.apply_updates(state["params"], updates),
            batch_stats=stats,
            opt_state=opt_state,
        )
        return new, (loss, accuracy)

    return functools.partial(step, images=images, labels=labels, captions=captions)


def initial_state(recipe: Recipe) -> dict[str, Any]:
    """Fresh parameters and optimiser state."""
    config = recipe.config
    side = config.image_resolution
    variables = jax.jit(CLIP(config).init)(
        jax.random.key(recipe.seed),
        jnp.zeros((1, side, side, 3)),
        jnp.zeros((1, config.require_text().context_length), jnp.int32),
    )
    params = variables["params"]
    if recipe.text_from:
        params["text"] = load(recipe.text_from)[1]["params"]["text"]
    params["logit_scale"] = jnp.log(jnp.float32(recipe.logit_scale))
    return dict(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=_optimizer(recipe).init(params),
    )


def _render_chunk(chunk: int, seed: int, fonts: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    return glyphs.render_set(1000, fonts, seed * 100_000 + chunk)


def rendered(
    path: Path, count: int, seed: int, fonts: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Renders `count` images (rounded up to thousands) on all cores, or reads earlier ones."""
    if not path.exists():
        work = functools.partial(_render_chunk, seed=seed, fonts=fonts)
        # Forking a process that has started JAX can deadlock.
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            parts = list(pool.map(work, range(math.ceil(count / 1000))))
        images, labels = (np.concatenate(p) for p in zip(*parts, strict=True))
        partial = path.with_suffix(".part.npz")
        np.savez(partial, images=images, labels=labels)
        partial.replace(path)
    with np.load(path) as file:
        return file["images"], file["labels"]


def accuracy(
    config: CLIPConfig, variables: dict[str, Any], images: np.ndarray, labels: np.ndarray
) -> float:
    """Zero-shot accuracy on all glyph classes with the template "This is a photo of a {}"."""
    model = CLIP(config)
    texts = [f"This is a photo of a {g}" for g in glyphs.CLASSES]
    tokens = tokenize(texts, config.require_text().context_length)
    text_features: Any = model.apply(variables, tokens, method="encode_text")
    text = unit_norm(text_features)

    @jax.jit
    def correct(x: jax.Array, y: jax.Array) -> jax.Array:
        features: Any = model.apply(variables, normalize(x), method="encode_image")
        return ((features @ text.T).argmax(-1) == y).sum()

    size = 500
    parts = [
        correct(images[i : i + size], labels[i : i + size]) for i in range(0, len(labels), size)
    ]
    return float(sum(map(int, parts)) / len(labels))


def export(variables: dict[str, Any], path: Path, notes: dict[str, Any]) -> None:
    """Writes the model in float16 under OpenAI's names, and a JSON file that describes it."""
    flat = {k: np.asarray(v) for k, v in traverse_util.flatten_dict(variables).items()}
    # No caption uses most tokens. Their rows are still random; zeros compress better.
    used = np.unique(_captions())
    embedding = np.zeros_like(flat["params", "text", "token_embedding", "embedding"])
    embedding[used] = flat["params", "text", "token_embedding", "embedding"][used]
    flat["params", "text", "token_embedding", "embedding"] = embedding
    tensors = {k: v.astype(np.float16) for k, v in openai.to_state_dict(flat).items()}
    formats.write_safetensors(path, tensors, {"license": "Apache-2.0"})
    path.with_suffix(".json").write_text(json.dumps(notes, indent=2) + "\n")


def pretrain(recipe: Recipe, workdir: Path, name: str, save_every: int = 250) -> None:
    """Trains, continuing from `workdir`'s last save, and exports `workdir/name.safetensors`."""
    workdir.mkdir(parents=True, exist_ok=True)
    started = time.time()
    images, labels = rendered(
        workdir / "train.npz", recipe.images, recipe.seed + 1, glyphs.TRAIN_FONTS
    )
    unseen = rendered(workdir / "unseen.npz", 4000, recipe.seed + 2, glyphs.HELD_OUT_FONTS)
    print(f"{len(labels)} renderings ready after {time.time() - started:.0f} s", flush=True)
    state, saved = initial_state(recipe), workdir / "state.msgpack"
    if saved.exists():
        state = serialization.from_bytes(state, saved.read_bytes())
        state = jax.tree.map(jnp.asarray, state)
    step = make_step(recipe, jnp.asarray(images), jnp.asarray(labels), jnp.asarray(_captions()))
    for i in range(int(state["step"]), recipe.steps):
        state, (loss, correct) = step(state)
        if (i + 1) % save_every == 0 or i + 1 == recipe.steps:
            variables = {k: state[k] for k in ("params", "batch_stats")}
            unseen_accuracy = accuracy(recipe.config, variables, *unseen)
            print(
                f"step {i + 1}/{recipe.steps}: loss {float(loss):.3f}, batch accuracy "
                f"{float(correct):.3f}, unseen renderings {unseen_accuracy:.4f}, "
                f"{time.time() - started:.0f} s",
                flush=True,
            )
            partial = saved.with_suffix(".part")
            partial.write_bytes(serialization.to_bytes(jax.device_get(state)))
            partial.replace(saved)
    variables = {k: state[k] for k in ("params", "batch_stats")}
    notes = dict(
        clip=dataclasses.asdict(recipe.config),
        recipe=dataclasses.asdict(recipe),
        classes=list(glyphs.CLASSES),
        accuracy_unseen_renderings=accuracy(recipe.config, variables, *unseen),
        training_fonts=list(glyphs.TRAIN_FONTS),
        held_out_fonts=list(glyphs.HELD_OUT_FONTS),
        command=(
            f"python -m vprompt_jax.zoo.pretrain --workdir DIR --tower {recipe.tower} "
            f"--steps {recipe.steps} --images {recipe.images}"
        ),
    )
    export(variables, workdir / f"{name}.safetensors", notes)
    print(f"wrote {workdir / name}.safetensors: {notes['accuracy_unseen_renderings']:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Pretrain the embedded mini CLIP on glyphs rendered from matplotlib's fonts."
    )
    parser.add_argument("--workdir", type=Path, required=True, help="renderings, saves and result")
    parser.add_argument("--tower", choices=TOWERS, default=Recipe.tower)
    parser.add_argument("--steps", type=int, help="default: that of the tower's recipe")
    parser.add_argument("--images", type=int, default=Recipe.images, help="renderings to train on")
    parser.add_argument("--name", help="file name of the result; default: mini-clip-TOWER")
    args = parser.parse_args()
    try:
        recipe = Recipe(tower=args.tower, images=args.images, **RECIPES[args.tower])
        if args.steps is not None:
            recipe = dataclasses.replace(recipe, steps=args.steps)
        pretrain(recipe, args.workdir, args.name or f"mini-clip-{args.tower}")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
