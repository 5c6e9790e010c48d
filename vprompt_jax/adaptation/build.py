"""Puts a method's parts together on a tower, or says why they do not fit it."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from vprompt_jax.adaptation.model import PromptedCLIP
from vprompt_jax.adapters import lora, scale_shift, tuning
from vprompt_jax.adapters.activation import ActivationPrompt
from vprompt_jax.adapters.bottleneck import LAYERS as ADAPTER_LAYERS
from vprompt_jax.adapters.bottleneck import Bottleneck
from vprompt_jax.adapters.tokens import PromptTokens
from vprompt_jax.clip import sites
from vprompt_jax.clip.model import CLIP
from vprompt_jax.clip.towers import ViTConfig
from vprompt_jax.heads.linear import LinearHead
from vprompt_jax.process.errors import UserError
from vprompt_jax.prompts import adavipro
from vprompt_jax.prompts.vp import VisualPrompt, largest_size, support


def build(config, clip: CLIP, variables: dict, classes: int) -> PromptedCLIP:
    """Puts a method's parts together.

    Args:
      config: resolved by `config.resolve`; sizes left at None follow the tower's resolution.
      clip: the frozen CLIP.
      variables: its variables; only their shapes matter.
      classes: number of classes.

    Raises:
      UserError: if a part does not fit the tower.
    """
    try:
        prompt, mask = _pixel_parts(config, clip.config.image_resolution)
        # Walking a large tower takes most of a second; prompts and heads do without.
        found = functools.cache(lambda: sites.sites_of(clip, variables))
        adapters = _adapters(config, clip, found)
        head = _head(config, clip, variables, classes)
        tuned = tuning.selected(variables["params"]["visual"], config.tune.weights, clip.config)
    except ValueError as error:
        raise UserError(str(error)) from error
    entries = [site.entry for adapter in adapters.values() for site in adapter.sites]
    entries += [sites.PIXELS] if prompt is not None else []
    entries += [sites.entry_of_weight(path, found()) for path in tuning.paths(tuned)]
    entry = sites.lowest(entries)
    return PromptedCLIP(
        clip,
        prompt=prompt,
        mask=mask,
        head=head,
        entry=clip.config.depth if entry is None else entry,
        **adapters,
    )


def _pixel_parts(config, side: int):
    prompt = mask = None
    if config.prompt.template != "none":
        size = config.prompt.size
        if size is None:
            size = round(30 / 224 * side)  # the papers' 30 at 224 pixels
        support(config.prompt.template, size, side)
        prompt = VisualPrompt(config.prompt.template, size, side, config.prompt.init)
    if config.mask.kind != "none":
        region = config.mask.region
        if region is None:
            region = adavipro.default_region(side)
        adavipro.check_region(region, side)
        dtype = jnp.dtype(config.model.dtype)
        mask = adavipro.MaskGenerator(region, config.mask.width, config.mask.edge, dtype)
    return prompt, mask


def _adapters(
    config, clip: CLIP, found: Callable[[], dict[sites.Where, sites.Site]]
) -> dict[str, Any]:
    c = config
    is_vit, depth = isinstance(clip.config.vision, ViTConfig), clip.config.depth
    made: dict[str, sites.Adapter] = {}

    def needs_vit(what: str) -> None:
        if not is_vit:
            raise ValueError(f"{what} needs a vision transformer; this tower is a ResNet")

    if c.ap.positions:
        made["ap"] = ActivationPrompt(_chosen(c.ap.positions, found(), depth), shape=c.ap.shape)
    if c.vpt.kind != "none":
        needs_vit(f"vpt.kind={c.vpt.kind}")
        if c.ap.positions and c.ap.shape == "full" and set(c.ap.positions) != {depth}:
            raise ValueError(
                "vpt adds tokens, so ap.shape=full has no fixed shape: set ap.shape=channel"
            )
        where = range(depth) if c.vpt.kind == "deep" else (0,)
        patch, prefix = 3 * clip.config.vision.patch_size**2, clip.config.vision.prefix
        made["vpt"] = PromptTokens(tuple(found()[i] for i in where), c.vpt.tokens, patch, prefix)
    if c.adapter.width:
        made["adapter"] = Bottleneck(sites.matching(found(), ADAPTER_LAYERS), c.adapter.width)
    if c.lora.rank:
        needs_vit(f"lora.rank={c.lora.rank}")
        made["lora"] = _lora(c.lora, found(), clip.config.vision.width)
    if c.ssf.kind != "none":
        layers = scale_shift.VIT_LAYERS if is_vit else scale_shift.RESNET_LAYERS
        made["ssf"] = scale_shift.ScaleShift(sites.matching(found(), layers))
    return made


def _chosen(positions, found: dict[sites.Where, sites.Site], depth: int) -> tuple[sites.Site, ...]:
    missing = [p for p in positions if p not in found]
    if missing:
        names = [str(w) for w, site in found.items() if site.is_norm]
        shown = ", ".join(names[:3])
        raise ValueError(
            f"ap.positions={tuple(positions)}: no {', '.join(map(repr, missing))} in this tower; "
            f'positions are 0..{depth}, "pixels", and layers such as {shown}'
        )
    if len(set(positions)) < len(positions):
        raise ValueError(f"ap.positions={tuple(positions)} names a position twice")
    return tuple(found[p] for p in positions)


def _lora(section, found: dict[sites.Where, sites.Site], width: int) -> lora.LoRA:
    unknown = [t for t in section.targets if t not in lora.TARGETS]
    if unknown or not section.targets:
        raise ValueError(
            f"lora.targets={tuple(section.targets)}: choose from {', '.join(lora.TARGETS)}"
        )
    if section.rank > width:
        raise ValueError(f"lora.rank={section.rank} is over the tower's width {width}")
    ends = "|".join(sorted({lora.TARGETS[t][0] for t in section.targets}))
    layers = sites.matching(found, rf"resblocks_\d+/({ends})")
    return lora.LoRA(layers, section.rank, section.alpha, tuple(section.targets))


def _head(config, clip: CLIP, variables: dict, classes: int) -> LinearHead | str:
    kind = config.head.kind
    if kind == "linear":
        return LinearHead(classes)
    if kind == "text" and not clip.config.has_text:
        raise ValueError("this checkpoint has no text tower: set config.head.kind=linear")
    if kind == "mapping":
        source = variables["params"].get("classifier")
        if source is None:
            raise ValueError("head.kind=mapping needs a checkpoint with a classifier of its own")
        if classes > source["bias"].shape[-1]:
            raise ValueError(
                f"head.kind=mapping: {classes} classes cannot be mapped one to one to the "
                f"checkpoint's {source['bias'].shape[-1]}"
            )
    return kind


def describe(model: PromptedCLIP) -> dict[str, Any]:
    """What a run's parts were, for its result: {} for a method without them."""
    parts: dict[str, Any] = {}
    if model.prompt is not None:
        parts["prompt_init"] = model.prompt.start
        parts["prompt_size"] = model.prompt.size
        parts["prompt_covers_image"] = model.prompt.size == largest_size(
            model.prompt.template, model.resolution
        )
    if model.mask is not None:
        parts["region"] = model.mask.region
    if model.ap is not None:
        parts["ap_positions"] = [site.where for site in model.ap.sites]
        parts["ap_shape"] = model.ap.shape
        parts["depth"] = model.clip.config.depth
    return parts
