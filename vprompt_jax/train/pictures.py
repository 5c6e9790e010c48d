"""What TensorBoard shows of a prompt during training, and a word on masks that have collapsed."""

import functools
from typing import Any

import jax
import numpy as np

from vprompt_jax.adaptation.model import PromptedCLIP, variables_of
from vprompt_jax.clip.preprocess import on_screen
from vprompt_jax.prompts.adavipro import dilate
from vprompt_jax.train.assemble import Run
from vprompt_jax.train.step import evaluation_places

_SHOWN = 4  # images of val


def collapse(values: dict[str, float]) -> str | None:
    """Says so if the masks of a whole split are all on or all off where the prompt has values."""
    on = values.get("regions_on")
    if on is None or 0.001 < on < 0.999:
        return None
    if on < 0.5:
        return (
            "the mask has collapsed: (nearly) every region is off, so the prompt is not used "
            "(lower config.mask.learning_rate, or raise config.prompt.learning_rate)"
        )
    return "the mask has collapsed: (nearly) every region is on, as in VP"


def of_run(run: Run, params: Any) -> dict[str, np.ndarray]:
    """Pictures in 0..1 by name: the prompt [1, R, R, 3], prompted images and masks [n, R, R, c].

    Empty without a pixel prompt, and with several processes, where no one process has all weights.
    """
    model = run.model
    if model.prompt is None or run.dataset.val is None or jax.process_count() > 1:
        return {}
    indices = np.arange(min(_SHOWN, len(run.dataset.val)), dtype=np.int32)
    places = evaluation_places(run.root, indices)
    images = run.dataset.val.fetch(indices)
    pixels, after, out = _prompted(model, variables_of(params, run.frozen), images, places)
    c = model.clip.config
    shown = {
        "prompt": on_screen(pixels, c.mean, c.std),
        "prompted": on_screen(after, c.mean, c.std),
    }
    if model.mask is not None:
        shown["mask"] = np.asarray(dilate(out["marks"], model.mask.region))
    return shown


@functools.partial(jax.jit, static_argnums=0)
def _prompted(model: PromptedCLIP, variables, images, places):
    x = model.apply(variables, images, method="pixels")
    after, out = model.apply(variables, x, places, method="prompted")
    pixels, _ = model.prompt.apply({"params": variables["params"]["prompt"]}, places[:1])
    return pixels, after, out
