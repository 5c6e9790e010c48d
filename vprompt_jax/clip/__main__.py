"""Inspects a checkpoint, converts it, classifies an image with it, or measures loading it.

vprompt clip inspect ViT-B/32
vprompt clip convert model.npz vit.safetensors --set mean=0.5,0.5,0.5
vprompt clip classify mini-clip-rn photo.jpg "a seven" "a letter A"
vprompt clip measure ViT-B-32.pt
"""

import argparse
import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from vprompt_jax.process import program
from vprompt_jax.process.errors import UserError


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vprompt clip",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)

    def verb(name: str, summary: str) -> argparse.ArgumentParser:
        command = verbs.add_parser(name, help=summary, description=summary)
        command.add_argument("checkpoint", help="file, folder or public name (docs/checkpoints.md)")
        command.add_argument(
            "--activation", help="quick_gelu, gelu or gelu_tanh, in place of the checkpoint's"
        )
        command.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE", dest="fields",
            help="a field of CLIPConfig that the checkpoint leaves open or states wrongly",
        )  # fmt: skip
        return command

    verb("inspect", "describe a checkpoint without reading its weights")
    convert = verb("convert", "write a checkpoint as .safetensors, and its config as .json")
    convert.add_argument("output", type=Path, help="a path that ends in .safetensors")
    convert.add_argument("--dtype", default="stored", choices=("stored", *_DTYPES))
    classify = verb("classify", "classify an image zero-shot")
    classify.add_argument("image", type=Path)
    classify.add_argument("classes", nargs="+", help="class names")
    classify.add_argument("--template", default="This is a photo of a {}")
    for command in (convert, classify):
        command.add_argument(
            "--resolution", type=int, help="side of the input in pixels; positions are resized"
        )
    measure = verb("measure", "time and memory of loading, and time to the first image features")
    measure.add_argument("--random", action="store_true", help="random weights of a variant, such "
                         'as "DINOv2 ViT-B/14", in place of a checkpoint')  # fmt: skip
    return parser


_DTYPES = ("float32", "float16", "bfloat16")


def _fields(settings: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: expected FIELD=VALUE")
        parts = [_value(part) for part in text.split(",")]
        fields[name] = parts[0] if len(parts) == 1 else tuple(parts)
    return fields


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _chosen(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `load` that all commands share."""
    return {"activation": args.activation, "fields": _fields(args.fields)}


def inspect(args: argparse.Namespace) -> str:
    """Describes a checkpoint in lines of text."""
    import numpy as np

    from vprompt_jax.clip.checkpoints import licence
    from vprompt_jax.clip.checkpoints.load import open_checkpoint, stored_dtype, variable_shapes
    from vprompt_jax.clip.variants import variant_name

    opened = open_checkpoint(args.checkpoint, **_chosen(args))
    c = opened.config
    shapes = variable_shapes(c)
    count = sum(int(np.prod(s)) for path, s in shapes.items() if path[0] == "params")
    stored = sum(int(np.prod(t.shape)) * t.dtype.itemsize for t in opened.tensors.values())
    rows = {
        "weights": opened.path,
        "layout": opened.family.title,
        "variant": variant_name(c) or "none of the public ones",
        "parameters": f"{count:,}",
        "stored as": f"{stored_dtype(opened.tensors)}, {stored / 2**20:,.1f} MiB",
        "licence": licence.stated(opened.path) or "no file beside the weights states one",
        **c.fields(),
    }
    if opened.notice:
        rows["note"] = opened.notice
    return "\n".join(f"{name:<23} {value}" for name, value in rows.items())


def convert(args: argparse.Namespace) -> str:
    """Writes a checkpoint in this package's own format."""
    from flax import traverse_util

    from vprompt_jax.clip import vocabularies
    from vprompt_jax.clip.checkpoints import formats, licence, openai
    from vprompt_jax.clip.checkpoints.load import load
    from vprompt_jax.clip.checkpoints.locate import locate
    from vprompt_jax.clip.checkpoints.vocabularies import own_name

    if args.output.suffix != ".safetensors":
        raise UserError(f"{args.output}: the output's name must end in .safetensors")
    description = args.output.with_suffix(".json")
    for target in (args.output, description):
        if target.exists():
            raise UserError(f"{target} exists: choose another name, or remove it")
    dtype = None if args.dtype == "stored" else args.dtype
    clip, variables = load(
        args.checkpoint, dtype=dtype, image_resolution=args.resolution, **_chosen(args)
    )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    if clip.vocabulary:
        source = Path(clip.vocabulary)
        file = next(file for file in vocabularies.FILES if source.name.endswith(file))
        shutil.copyfile(source, own_name(args.output, file))
    partial = args.output.with_name(f"{args.output.name}.partial")
    flat = traverse_util.flatten_dict(variables)
    formats.write_safetensors(partial, openai.to_state_dict(flat), {})
    about: dict[str, Any] = {"clip": dataclasses.asdict(clip.config)}
    weights, _ = locate(args.checkpoint)
    if stated := licence.stated(weights):
        about["licence"] = stated
    description.write_text(json.dumps(about, indent=2) + "\n")
    os.replace(partial, args.output)
    return f"{args.output} and {description.name}: {args.output.stat().st_size / 2**20:,.1f} MiB"


def classify(args: argparse.Namespace) -> str:
    """Classifies an image zero-shot: probabilities of the classes, best first."""
    import jax

    from vprompt_jax.clip import pictures, preprocess
    from vprompt_jax.clip.checkpoints.load import load
    from vprompt_jax.clip.class_texts import class_texts, encode_classes
    from vprompt_jax.clip.model import cosine_logits

    try:
        image = pictures.decode(args.image)
    except Exception as error:  # Pillow's decoders raise many kinds
        raise UserError(f"{args.image} is not a readable image: {error}") from error
    clip, variables = load(args.checkpoint, image_resolution=args.resolution, **_chosen(args))
    c = clip.config
    if not c.has_text:
        raise UserError(f"{args.checkpoint} has no text tower, so it cannot classify zero-shot")
    texts = class_texts(args.classes, [args.template])
    pixels = preprocess(image, c.image_resolution, c.mean, c.std, mode=c.resize)[None]
    features = jax.jit(lambda v, x: clip.apply(v, x, method="encode_image"))(variables, pixels)
    logits = cosine_logits(
        features, encode_classes(clip, variables, texts), variables["params"]["logit_scale"]
    )[0]
    shares = jax.nn.softmax(logits)
    return "\n".join(f"{shares[i]:7.2%}  {args.classes[i]}" for i in (-logits).argsort())


def measure(args: argparse.Namespace) -> str:
    """The figures of `cost.measure` in lines of text."""
    from vprompt_jax.clip.checkpoints import cost, drawn

    with tempfile.TemporaryDirectory() as folder:
        path = drawn.write(args.checkpoint, Path(folder)) if args.random else args.checkpoint
        figures = cost.measure(path, args.activation, _fields(args.fields))
    return "\n".join(f"{name:<52} {value:10,.2f}" for name, value in figures.items())


def main() -> None:
    args = parser().parse_args()
    with program.user_errors():
        program.set_up_process()
        verbs = {"inspect": inspect, "convert": convert, "classify": classify, "measure": measure}
        print(verbs[args.verb](args))


if __name__ == "__main__":
    main()
