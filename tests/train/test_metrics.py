"""TensorBoard's event files, read back by TensorBoard's own reader."""

import io
import json

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from vprompt_jax.config import default_config, resolve
from vprompt_jax.train import metrics


def events(folder):
    (path,) = folder.glob("events.out.tfevents.*")
    return list(LegacyEventFileLoader(str(path)).Load())


def test_tensorboard_reads_scalars_and_pictures(tmp_path):
    writer = metrics.make_writer(tmp_path, 0, resolve(default_config()))
    writer.write_scalars(3, {"train/loss": 0.5, "train/accuracy": np.float32(0.25)})
    grey = np.linspace(0, 1, 2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6, 1)
    writer.write_images(4, {"mask": grey, "prompt": np.full((1, 5, 5, 3), [1.5, 0.5, -1])})
    writer.flush()
    first, scalars, pictures = events(tmp_path)
    assert first.file_version == "brain.Event:2"
    assert scalars.step == 3
    assert {v.tag: v.simple_value for v in scalars.summary.value} == {
        "train/loss": 0.5, "train/accuracy": 0.25,
    }  # fmt: skip
    assert pictures.step == 4
    shown = {
        v.tag: np.asarray(Image.open(io.BytesIO(v.image.encoded_image_string)))
        for v in pictures.summary.value
    }
    assert list(shown) == ["mask/0", "mask/1", "prompt/0"]
    np.testing.assert_array_equal(shown["mask/1"][..., 2], np.round(255 * grey[1, ..., 0]))
    assert (shown["prompt/0"] == [255, 128, 0]).all()
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 3, "train/loss": 0.5, "train/accuracy": 0.25}]


def test_a_closed_writer_can_be_closed_again(tmp_path):
    writer = metrics.make_writer(tmp_path, 0, resolve(default_config()))
    writer.write_scalars(1, {"train/loss": 1.0})
    writer.close()
    writer.close()
    assert len(events(tmp_path)) == 2
