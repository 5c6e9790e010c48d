"""What `predict` takes from folders and lists, by the rules that hold for training."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from vprompt_jax.predict import __main__ as predict


class Model:
    """Tells how bright an image is."""

    resolution, class_names, resize = 8, ("dark", "bright"), "shortest"

    def probabilities(self, images):
        share = images.mean((1, 2, 3)) / 255
        return np.stack([1 - share, share], -1)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command; gives exit status, the records and what is on standard error."""
    monkeypatch.setattr(predict, "_load", lambda args: Model())
    monkeypatch.setattr(predict.program, "set_up_process", lambda: None)

    def with_arguments(*arguments):
        status = 0
        try:
            predict.main(["--workdir", "none", "--json", *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        shown = capsys.readouterr()
        return status, [json.loads(line) for line in shown.out.splitlines()], shown.err

    return with_arguments


@pytest.fixture
def album(tmp_path):
    for i in range(4):
        Image.new("RGB", (9, 12), (60 * i,) * 3).save(tmp_path / f"{i}.png")
    (tmp_path / "album.png").mkdir()
    Image.new("L", (30, 20), 250).save(tmp_path / "album.png" / "inside.jfif", "JPEG")
    (tmp_path / "._0.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "@eaDir").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "@eaDir" / "thumb.png")
    return tmp_path


def names(records):
    return [os.path.basename(record["image"]) for record in records]


def test_hidden_names_are_ignored_and_folders_are_entered_whatever_their_names(run, album):
    status, records, errors = run(album)
    assert (status, errors) == (0, "")
    assert names(records) == ["0.png", "1.png", "2.png", "3.png", "inside.jfif"]
    assert [r["top"][0]["label"] for r in records] == ["dark"] * 3 + ["bright"] * 2


def bad_files(album):
    whole = (album / "3.png").read_bytes()
    (album / "empty.png").write_bytes(b"")
    (album / "page.jpg").write_bytes(b"<html>")
    (album / "short.png").write_bytes(whole[:-30])
    return ["empty.png", "page.jpg", "short.png"]


@pytest.mark.parametrize("size", [1, 2, 64])
def test_a_bad_file_stops_or_is_named_while_the_others_are_labelled(run, album, size):
    bad = bad_files(album)
    status, records, errors = run(album, "--batch_size", size)
    assert (status, records) == (1, [])
    assert all(name in errors for name in bad[:2])  # whose headers tell
    assert "--on_bad_image skip" in errors
    expected = run(*[album / f"{i}.png" for i in range(4)])[1]
    status, records, errors = run(album, "--on_bad_image=skip", "--batch_size", size)
    assert status == 0
    assert records[:4] == expected
    assert len(records) == 5
    for name in bad:
        assert f"left out: {album / name} (" in errors


def test_nothing_but_bad_files_is_an_error(run, tmp_path):
    Image.new("L", (40, 40), 7).save(tmp_path / "a.png")
    (tmp_path / "short.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    (tmp_path / "a.png").write_bytes(b"")
    for name in ("a.png", "short.png"):
        status, records, errors = run(tmp_path / name, "--on_bad_image", "skip")
        assert (status, records) == (1, [])
        assert name in errors


def test_what_is_no_picture_is_never_passed_over_in_silence(run, album):
    (album / "holiday.HEIC").write_bytes(b"heic")
    (album / "notes.txt").write_text("seen on Monday")
    (album / "gone.png").symlink_to(album / "nowhere")
    status, records, errors = run(album)
    assert status == 0
    assert len(records) == 5
    for part in ("holiday.HEIC (.heic cannot be read here", "notes.txt (", "gone.png (a link to"):
        assert part in errors
    status, _, errors = run(album / "holiday.HEIC")
    assert status == 1
    assert "holiday.HEIC" in errors


def test_a_name_that_is_no_text_is_shown_with_escapes(run, album, capsys):
    raw = os.fsencode(album) + b"/b\xfc \x1b[31m.png"
    os.rename(album / "0.png", raw)
    status, records, _ = run(album)
    assert status == 0
    assert os.fsencode(records[-1]["image"]) == raw  # JSON escapes it
    predict.main(["--workdir", "none", str(album)])
    assert "/b\\xfc \\x1b[31m.png   " in capsys.readouterr().out
