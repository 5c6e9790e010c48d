"""The two train steps of a mini CLIP: first the image tower, then the text tower.

This is locked-image tuning (LiT, arXiv 2111.07991): the image tower learns to classify, with a
vector per class, and is locked; then the text tower learns to put captions where the classes are.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vprompt_jax.clip.model import CLIP, unit_norm
from vprompt_jax.clip.preprocess import normalize
from vprompt_jax.zoo import captions, images, objective
from vprompt_jax.zoo.recipe import Recipe, blurred, flipped, moved, plain

_LARGEST_SCALE = 100.0  # as CLIP's paper limits it (section 2.5)

State = dict[str, Any]
Step = Callable[[State], tuple[State, dict[str, jax.Array]]]


def _optimizer(recipe: Recipe, rate: float, steps: int) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, recipe.warmup_steps, steps)
    decayed = functools.partial(jax.tree.map, lambda p: p.ndim >= 2)
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, weight_decay=recipe.weight_decay, mask=decayed),
    )


def _updated(
    optimizer: optax.GradientTransformation, state: State, params: Any, gradient: Any
) -> State:
    updates, opt_state = optimizer.update(gradient, state["opt_state"], params)
    return dict(
        step=state["step"] + 1, params=optax.apply_updates(params, updates), opt_state=opt_state
    )


def image_state(recipe: Recipe, count: int, fixed: jax.Array | None) -> State:
    """The state before the first image step.

    Args:
      recipe: of the model.
      count: number C of classes.
      fixed: vectors [C, E] that the classes keep; None to learn them.
    """
    config = recipe.config
    side = config.image_resolution
    keys = jax.random.split(jax.random.key(recipe.seed))
    init = jax.jit(functools.partial(CLIP(config).init, method="encode_image"))
    variables = init(keys[0], jnp.zeros((1, side, side, 3)))
    params = {k: variables["params"][k] for k in ("visual", "logit_scale")}
    if fixed is None:
        # Of about unit length: Adam would take long to turn longer vectors.
        drawn = jax.random.normal(keys[1], (count, config.embed_dim))
        params["classes"] = drawn * config.embed_dim**-0.5
    return dict(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=_optimizer(recipe, recipe.learning_rate, recipe.steps).init(params),
    )


def image_step(
    recipe: Recipe, photos: images.Labelled, drawn: images.Labelled, fixed: jax.Array | None
) -> Step:
    """Compiles the step of the image tower; the images stay on the device as they are.

    Args:
      recipe: of the model.
      photos: photographs, whose classes come first.
      drawn: renderings of glyphs.
      fixed: vectors that the classes keep; None to learn them.
    """
    model = CLIP(recipe.config, train=True)
    optimizer = _optimizer(recipe, recipe.learning_rate, recipe.steps)
    first_glyph = int(photos.labels.max()) + 1

    def batch_of(key: jax.Array, step: jax.Array, photos: Any, drawn: Any) -> Any:
        keys = jax.random.split(key, 5)
        at = jax.random.randint(keys[0], (recipe.photos,), 0, len(photos[1]))
        seen = flipped(keys[1], normalize(photos[0][at]))
        at_glyph = jax.random.randint(keys[2], (recipe.glyphs,), 0, len(drawn[1]))
        rendered = normalize(drawn[0][at_glyph])
        if recipe.plain_fraction:
            start = plain(rendered)
            rendered = start + recipe.scenes(step) * (rendered - start)
        x = jnp.concatenate([seen, blurred(keys[3], rendered)])
        labels = jnp.concatenate([photos[1][at], first_glyph + drawn[1][at_glyph]])
        return moved(keys[4], x, recipe.shift), labels

    # Arguments, since constants would be folded and copied by the compiler.
    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: State, photos: Any, drawn: Any, fixed: Any) -> tuple[State, Any]:
        key = jax.random.fold_in(jax.random.key(recipe.seed), state["step"])
        x, y = batch_of(key, state["step"], photos, drawn)

        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": state["batch_stats"]}
            applied: Any = model.apply(variables, x, method="encode_image", mutable=["batch_stats"])
            features, updated = applied
            features = unit_norm(features)
            classes = unit_norm(params["classes"] if fixed is None else fixed)
            scale = jnp.exp(params["logit_scale"])
            loss = objective.of_images(features, y, classes, scale, recipe.label_smoothing)
            hits = (features @ classes.T).argmax(-1) == y
            return loss, (updated.get("batch_stats", {}), {"loss": loss, "accuracy": hits.mean()})

        params = state["params"]
        (_, (stats, shown)), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        new = _updated(optimizer, state, params, gradient)
        largest = np.float32(np.log(_LARGEST_SCALE))
        new["params"]["logit_scale"] = jnp.minimum(new["params"]["logit_scale"], largest)
        return {**new, "batch_stats": stats}, shown

    on_device = jax.device_put(((photos.images, photos.labels), (drawn.images, drawn.labels)))
    return functools.partial(step, photos=on_device[0], drawn=on_device[1], fixed=fixed)


def text_state(recipe: Recipe) -> State:
    """The state before the first text step."""
    config = recipe.config
    init = jax.jit(functools.partial(CLIP(config).init, method="encode_text"))
    tokens = jnp.zeros((1, config.require_text().context_length), jnp.int32)
    params = init(jax.random.key(recipe.seed), tokens)["params"]["text"]
    return dict(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=_optimizer(recipe, recipe.text_learning_rate, recipe.text_steps).init(params),
    )


def text_step(recipe: Recipe, texts: captions.Captions, classes: np.ndarray) -> Step:
    """Compiles the step of the text tower.

    Args:
      recipe: of the model.
      texts: captions of the classes and of the words.
      classes: the image tower's unit vectors [C, E] of the classes.
    """
    model = CLIP(recipe.config)
    optimizer = _optimizer(recipe, recipe.text_learning_rate, recipe.text_steps)

    def drawn(key: jax.Array, own: Any, words: Any) -> tuple[jax.Array, jax.Array]:
        """Tokens of a caption per class and per drawn word, and where these belong."""
        keys = jax.random.split(key, 3)
        chosen = jax.random.randint(keys[0], (len(own[0]),), 0, own[0].shape[1])
        at = jax.random.choice(keys[1], len(words[0]), (recipe.words,), replace=False)
        template = jax.random.randint(keys[2], (recipe.words,), 0, words[0].shape[1])
        tokens = [own[0][jnp.arange(len(chosen)), chosen], words[0][at, template]]
        return jnp.concatenate(tokens), jnp.concatenate([own[1], words[1][at]])

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: State, own: Any, words: Any) -> tuple[State, Any]:
        key = jax.random.fold_in(jax.random.key(recipe.seed), state["step"])
        tokens, targets = drawn(key, own, words)

        def loss_of(params: Any) -> jax.Array:
            # The module asks for its scale as well, whether it is used or not.
            variables = {"params": {"text": params, "logit_scale": jnp.zeros(())}}
            features: Any = model.apply(variables, tokens, method="encode_text")
            return objective.of_texts(unit_norm(features), targets)

        loss, gradient = jax.value_and_grad(loss_of)(state["params"])
        return _updated(optimizer, state, state["params"], gradient), {"loss": loss}

    targets = objective.word_targets(texts, classes, recipe.seed)
    own, words = jax.device_put(((texts.classes, classes), (texts.words, targets)))
    return functools.partial(step, own=own, words=words)
