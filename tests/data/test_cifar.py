"""CIFAR-10 and CIFAR-100, prepared from their archives by a server on this machine."""

import hashlib
import io
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from vprompt_jax.data import cifar, tfds_source
from vprompt_jax.process.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")
checksums = pytest.importorskip("tensorflow_datasets.core.download.checksums")

PER_FILE = 20


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def archive(name: str) -> tuple[str, bytes, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The layout of the real archive with twenty images per file; images and labels by split."""
    rng = np.random.default_rng(len(name))
    fine = name == "cifar100"
    folder = "cifar-100-binary" if fine else "cifar-10-batches-bin"
    trains = ["train.bin"] if fine else [f"data_batch_{i}.bin" for i in range(1, 6)]
    tests = ["test.bin" if fine else "test_batch.bin"]
    meta = {"fine_label_names.txt": 100, "coarse_label_names.txt": 20} if fine else {
        "batches.meta.txt": 10
    }  # fmt: skip
    raw, splits = io.BytesIO(), {}
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:

        def add(file: str, content: bytes) -> None:
            info = tarfile.TarInfo(f"{folder}/{file}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        for file, count in meta.items():
            add(file, "".join(f"{file[:4]}{i}\n" for i in range(count)).encode() + b"\n")
        for split, files in (("train", trains), ("test", tests)):
            images, labels = [], []
            for file in files:
                pixels = rng.integers(0, 256, (PER_FILE, 32, 32, 3), np.uint8)
                own = rng.integers(0, 100 if fine else 10, PER_FILE).astype(np.uint8)
                columns = [own % 20, own] if fine else [own]
                planes = pixels.transpose(0, 3, 1, 2).reshape(PER_FILE, -1)
                add(file, np.concatenate([np.stack(columns, 1), planes], 1).tobytes())
                images.append(pixels)
                labels.append(own)
            splits[split] = np.concatenate(images), np.concatenate(labels)
    return name.replace("cifar", "cifar-") + "-binary.tar.gz", raw.getvalue(), splits


@pytest.fixture(params=cifar.NAMES)
def served(request, tmp_path, monkeypatch):
    """A dataset's name, and its images and labels, whose archive TFDS's builder now points to."""
    file, content, splits = archive(request.param)
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / file).write_bytes(content)
    handler = partial(Quiet, directory=str(tmp_path / "www"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/{file}"
    theirs = tfds.builder_cls(request.param)
    files = theirs._cifar_info.fget
    monkeypatch.setattr(theirs, "_cifar_info", property(lambda self: files(self)._replace(url=url)))
    info = checksums.UrlInfo(len(content), hashlib.sha256(content).hexdigest(), file)
    monkeypatch.setattr(theirs, "url_infos", {url: info})
    monkeypatch.setenv("VPROMPT_CACHE", str(tmp_path / "cache"))
    yield request.param, splits
    server.shutdown()
    server.server_close()


def read(name, folder, split):
    """Examples as TFDS's own reader gives them, in its order."""
    builder = tfds.builder(name, data_dir=str(folder), file_format="array_record")
    return list(builder.as_data_source(split))


def test_what_is_prepared_is_what_the_archive_holds(served, tmp_path):
    name, splits = served
    dataset = tfds_source.load(name, str(tmp_path / "tfds"), 32)
    assert dataset.class_names[3] == ("fine3" if name == "cifar100" else "batc3")
    for split, (images, labels) in splits.items():
        examples = read(name, tmp_path / "tfds", split)
        ours = getattr(dataset, split)
        np.testing.assert_array_equal(ours.labels, [e["label"] for e in examples])
        np.testing.assert_array_equal(
            ours.fetch(np.arange(len(ours))), [e["image"] for e in examples]
        )
        places = [int(e["id"].decode().removeprefix(f"{split}_")) for e in examples]
        assert sorted(places) == list(range(len(labels)))
        for example, place in zip(examples, places, strict=True):
            np.testing.assert_array_equal(example["image"], images[place])
            assert example["label"] == labels[place]
            if name == "cifar100":
                assert example["coarse_label"] == labels[place] % 20


def test_tfds_s_own_preparation_is_the_same(served, tmp_path):
    pytest.importorskip("tensorflow")
    name, splits = served
    cifar.builder(name, str(tmp_path / "ours")).download_and_prepare()
    theirs = tfds.builder(name, data_dir=str(tmp_path / "theirs"), file_format="array_record")
    theirs.download_and_prepare()
    for split in splits:
        pairs = zip(read(name, tmp_path / "ours", split), theirs.as_data_source(split), strict=True)
        for ours, other in pairs:
            assert set(ours) == set(other)
            for field in ours:
                np.testing.assert_array_equal(ours[field], other[field])
    for file in ("features.json", "label.labels.txt"):
        paths = [tmp_path / side / name / "3.0.2" / file for side in ("ours", "theirs")]
        assert [p.is_file() and p.read_text() for p in paths].count(False) in (0, 2)


def test_a_damaged_download_is_refused(served, tmp_path):
    name, _ = served
    (path,) = (tmp_path / "www").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="damaged on the way"):
        tfds_source.load(name, str(tmp_path / "tfds"), 32)


def test_a_tfrecord_preparation_is_refused_with_the_way_out(served, tmp_path):
    pytest.importorskip("tensorflow")
    name, _ = served
    tfds.builder(name, data_dir=str(tmp_path), file_format="tfrecord").download_and_prepare()
    with pytest.raises(UserError, match="file_format='array_record'"):
        tfds_source.load(name, str(tmp_path), 32)


@pytest.mark.parametrize("name", cifar.NAMES)
def test_the_real_archives_are_known_by_their_checksums(name, tmp_path):
    """As TFDS lists them: it finds checksums by the file that a builder's class is written in."""
    made = cifar.builder(name, str(tmp_path))
    about = made.url_infos[made._cifar_info.url]
    assert len(about.checksum) == 64
    assert int(about.size) > 10**8
