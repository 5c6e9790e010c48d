"""One way to read a picture: modes, orientations and sizes, for training as for prediction."""

import io
import threading

import numpy as np
import pytest
from PIL import Image, ImageFile

from vprompt_jax.clip.pictures import decode, decoded_size
from vprompt_jax.clip.preprocess import STD, preprocess, preprocess_batch, resize_and_crop
from vprompt_jax.data import folder
from vprompt_jax.data.images import read
from vprompt_jax.process.errors import UserError

# As the EXIF standard has them: what is stored -> what is seen.
TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def grey(height, width, seed=0):
    """Blocks of grey levels that no turn maps onto itself; 0 and 255 are among them."""
    levels = np.random.default_rng(seed).integers(0, 256, (height // 2, width // 2))
    levels[0, :2] = 0, 255
    return levels.astype(np.uint8).repeat(2, 0).repeat(2, 1)


def colours(levels):
    return np.stack([levels, 255 - levels, levels // 2], -1)


def sixteen(levels):
    return levels.astype(np.uint16) * 257


def palette(levels):
    return Image.fromarray(colours(levels)).quantize(256)


def with_alpha(levels):
    alpha = np.where(np.arange(levels.shape[1]) % 3, 255, 90).astype(np.uint8)
    return np.concatenate([colours(levels), np.broadcast_to(alpha, levels.shape)[..., None]], -1)


def grey_with_alpha(levels):
    return Image.fromarray(levels).convert("LA")


# By name: the stored image of grey levels, the file's format, the decoded pixels.
MODES = {
    "L": (Image.fromarray, "PNG", lambda a: a),
    "L jpeg": (Image.fromarray, "JPEG", None),
    "1": (lambda a: Image.fromarray(a > 127), "PNG", lambda a: np.where(a > 127, 255, 0)),
    "LA": (grey_with_alpha, "PNG", lambda a: a),
    "RGB": (lambda a: Image.fromarray(colours(a)), "PNG", colours),
    "RGB webp": (lambda a: Image.fromarray(colours(a)), "WEBP", None),
    "YCbCr": (lambda a: Image.fromarray(colours(a)), "JPEG", None),
    "RGBA": (lambda a: Image.fromarray(with_alpha(a)), "PNG", colours),
    "P": (palette, "PNG", lambda a: np.asarray(palette(a).convert("RGB"))),
    "CMYK": (lambda a: Image.fromarray(colours(a)).convert("CMYK"), "TIFF", colours),
    "CMYK jpeg": (lambda a: Image.fromarray(colours(a)).convert("CMYK"), "JPEG", None),
    "I;16": (lambda a: Image.fromarray(sixteen(a)), "PNG", lambda a: a),
    "I;16 tiff": (lambda a: Image.fromarray(sixteen(a)), "TIFF", lambda a: a),
    "I;16B": (lambda a: Image.fromarray(sixteen(a).astype(">u2")), "TIFF", lambda a: a),
    "I to 255": (lambda a: Image.fromarray(a.astype(np.int32)), "TIFF", lambda a: a),
    "I to 65535": (lambda a: Image.fromarray(sixteen(a).astype(np.int32)), "TIFF", lambda a: a),
    "F to 1": (lambda a: Image.fromarray(a.astype(np.float32) / 255), "TIFF", lambda a: a),
    "F to 255": (lambda a: Image.fromarray(a.astype(np.float32)), "TIFF", lambda a: a),
}


def write(path, image, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, kind, exif=exif)


def rgb(pixels):
    return np.stack([pixels] * 3, -1) if pixels.ndim == 2 else pixels


def assert_close(a, b):
    assert a.shape == b.shape
    assert np.abs(a.astype(int) - b).max() <= 1


@pytest.mark.parametrize("sizes", ["one small size", "several sizes"])
@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("mode", MODES)
def test_training_sees_what_prediction_decodes(tmp_path, mode, orientation, sizes):
    make, kind, expected = MODES[mode]
    shapes = [(12, 16)] * 2 if sizes == "one small size" else [(12, 16), (40, 28)]
    files = []
    for i, shape in enumerate(shapes):
        (tmp_path / "ab"[i]).mkdir()
        files.append(tmp_path / "ab"[i] / f"picture.{kind.lower()}")
        write(files[i], make(grey(*shape, seed=i)), kind, orientation)
    resolution = 20
    trained = folder.load(tmp_path, resolution, 2).train.fetch(np.arange(2))
    for i, (file, shape) in enumerate(zip(files, shapes, strict=True)):
        stored = expected and rgb(expected(grey(*shape, seed=i)))
        if stored is None:  # a lossy file: as Pillow gives it
            with Image.open(file) as image:
                stored = np.asarray(image.convert("RGB"))
        upright = np.ascontiguousarray(TURNED[orientation](stored)).astype(np.uint8)
        predicted = read(file, resolution)
        assert_close(predicted, resize_and_crop(upright, resolution))
        if sizes == "one small size":
            assert decoded_size(file, resolution) == upright.shape[:2]
            assert_close(trained[i], upright)
            on_device = np.asarray(preprocess_batch(trained[i : i + 1], resolution))[0]
            assert np.abs((on_device - preprocess(file, resolution)) * STD * 255).max() < 1.01
        else:
            np.testing.assert_array_equal(trained[i], predicted)
        content = file.read_bytes()
        np.testing.assert_array_equal(resize_and_crop(content, resolution), predicted)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_decoded_picture_is_not_turned_again(tmp_path):
    write(tmp_path / "a.png", Image.fromarray(grey(12, 16)), "PNG", 6)
    once = decode(tmp_path / "a.png")
    np.testing.assert_array_equal(once, np.rot90(grey(12, 16), -1))
    np.testing.assert_array_equal(decode(once), once)


def test_header_sizes_are_those_of_the_turned_picture():
    def exif():
        made = Image.Exif()
        made[0x0112] = 6
        return made

    wide = Image.new("RGB", (40, 30))
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        content = saved(wide, kind, exif=exif())
        assert decoded_size(content, 64) == (40, 30), kind
        assert decode(content).size == (30, 40), kind
    late = saved(wide, "PNG")
    end = late.rindex(b"\0\0\0\0IEND")
    block = saved(wide, "PNG", exif=exif())
    start = block.index(b"eXIf") - 4
    length = 12 + int.from_bytes(block[start : start + 4], "big")
    late = late[:end] + block[start : start + length] + late[end:]
    assert decoded_size(late, 64) == (40, 30)  # behind the pixels
    assert decode(late).size == (30, 40)


def test_exif_that_cannot_be_read_leaves_the_picture_as_it_is():
    content = saved(Image.fromarray(grey(12, 16)), "PNG", exif=b"Exif\0\0nothing of use")
    np.testing.assert_array_equal(decode(content), grey(12, 16))
    content = saved(Image.fromarray(grey(12, 16)), "JPEG", exif=b"Exif\0\0MM\0")
    assert decode(content).size == (16, 12)


@pytest.mark.parametrize("maximum", [4095, 65535])
def test_a_pgm_of_more_than_eight_bits(maximum):
    values = np.round(grey(12, 16) * (maximum / 255)).astype(">u2")
    content = b"P5 16 12 %d\n" % maximum + values.tobytes()
    assert_close(np.asarray(decode(content)), grey(12, 16))
    dark = b"P5 16 12 %d\n" % maximum + (values // 300).astype(">u2").tobytes()
    assert np.asarray(decode(dark)).max() <= 1  # not taken for eight bits


def test_a_tiff_says_how_many_bits_it_has_and_whether_zero_is_white():
    levels = grey(12, 16)
    inverted = saved(Image.fromarray(sixteen(255 - levels)), "TIFF")
    photometric = b"\x06\x01\x03\x00\x01\x00\x00\x00\x01"
    assert inverted.count(photometric) == 1
    assert_close(
        np.asarray(decode(inverted.replace(photometric, photometric[:-1] + b"\0"))), levels
    )
    # Twelve bits: two values in three bytes, written by hand.
    values = np.round(levels * (4095 / 255)).astype(int).reshape(-1, 2)
    packed = np.stack([values[:, 0] >> 4, (values[:, 0] & 15) << 4 | values[:, 1] >> 8,
                       values[:, 1] & 255], -1).astype(np.uint8).tobytes()  # fmt: skip
    tags = [(256, 16), (257, 12), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 12),
            (279, len(packed))]  # fmt: skip
    content = b"II*\0" + (8 + len(packed)).to_bytes(4, "little") + packed
    content += len(tags).to_bytes(2, "little")
    for tag, value in tags:
        content += b"".join(x.to_bytes(n, "little") for x, n in ((tag, 2), (4, 2), (1, 4)))
        content += value.to_bytes(4, "little")
    content += bytes(4)
    assert Image.open(io.BytesIO(content)).mode == "I;16"
    assert_close(np.asarray(decode(content)), levels)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0.0, 1.3]], np.float32),
        np.array([[0.0, 300.0]], np.float32),
        np.array([[-0.5, 1.0]], np.float32),
        np.array([[np.nan, 1.0]], np.float32),
        np.array([[0, 70_000]], np.int32),
        np.array([[-3, 200]], np.int32),
    ],
)
def test_grey_values_whose_white_is_not_known_are_refused(values):
    with pytest.raises(UserError, match="do not say which is white: save it with 8 or 16 bits"):
        decode(saved(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize(
    "array", [np.ones((4, 4, 3)), np.zeros((4, 4, 3), np.uint16), np.zeros((4, 4, 2), np.uint8)]
)
def test_arrays_of_another_kind_are_refused(array):
    with pytest.raises(UserError, match=r"one image as uint8 \[h, w, 3\]"):
        preprocess(array, 8)


def test_of_several_frames_the_first_is_taken():
    frames = [Image.fromarray(colours(grey(12, 16, seed))) for seed in range(3)]
    for kind in ("GIF", "PNG", "TIFF", "WEBP", "MPO"):
        several = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        pixels = np.asarray(decode(several).convert("RGB"))
        with Image.open(io.BytesIO(several)) as image:
            np.testing.assert_array_equal(pixels, image.convert("RGB"))
        assert np.abs(pixels.astype(int) - np.asarray(frames[0])).mean() < 40, kind


def test_transparency_is_dropped_whatever_is_below_it():
    image = palette(grey(12, 16))
    for transparency in (3, bytes(range(256))):
        content = saved(image, "PNG", transparency=transparency)
        np.testing.assert_array_equal(decode(content), image.convert("RGB"))


def test_a_file_that_ends_early_is_refused_and_the_user_s_switch_stays(monkeypatch):
    whole = saved(Image.fromarray(colours(grey(64, 64))), "JPEG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    failed = []

    def look():
        for _ in range(20):
            with pytest.raises(OSError, match="truncated"):
                decode(whole[:-200])
            failed.append(1)
            decode(whole)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 80
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
