"""Checkpoints by name, from a server on the loopback interface that misbehaves on request."""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

import vprompt_jax as vp
from tests.conftest import GOLDEN
from vprompt_jax.clip.checkpoints import locate
from vprompt_jax.process import download
from vprompt_jax.process.errors import UserError

pytestmark = pytest.mark.fast

DATA = (GOLDEN / "openai_vit_tiny.safetensors").read_bytes()
DIGEST = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path; `fault` names what goes wrong with the next GET."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.fault: str | None = None
        self.requests: list[tuple[str, str, str | None]] = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        server = self.server
        asked = self.headers.get("Range")
        server.requests.append((self.command, self.path, asked))
        data = server.files.get(self.path)
        if data is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(re.match(r"bytes=(\d+)-", asked)[1]) if asked else 0
        fault, server.fault = (server.fault, None) if body else (None, server.fault)
        if fault == "no ranges":
            start = 0
        if start >= len(data):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        rest = data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if len(data) > 10_000:  # as Hugging Face does for large files
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(data).hexdigest()}"')
        if fault == "damaged":
            rest = bytes([rest[0] ^ 1]) + rest[1:]
        if fault == "truncated":  # a whole answer, by its own account
            rest = rest[: len(rest) // 2]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if body:
            self.wfile.write(rest[: len(rest) // 3] if fault == "cut" else rest)
        self.close_connection = fault == "cut"


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def leftovers(folder: Path):
    return [p.name for p in folder.iterdir() if p.name.endswith(".part")]


def test_a_file_arrives_whole_and_only_once(server, tmp_path):
    server.files["/w"] = DATA
    for _ in range(2):
        assert download.fetch(f"{server.url}/w", tmp_path / "w", sha256=DIGEST)
    assert (tmp_path / "w").read_bytes() == DATA
    assert [r[0] for r in server.requests] == ["GET"]
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(
    "fault, message",
    [
        ("cut", "stopped after .* bytes.*the same command"),
        ("truncated", "SHA-256 .* discarded"),
        ("damaged", "SHA-256 .* discarded"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_after_a_fault_the_next_attempt_works(server, tmp_path, fault, message, known):
    server.files["/w"] = DATA
    sha256 = DIGEST if known else None  # None: the digest the server announces
    server.fault = fault
    with pytest.raises(UserError, match=message):
        download.fetch(f"{server.url}/w", tmp_path / "w", sha256=sha256)
    assert not (tmp_path / "w").exists()
    assert download.fetch(f"{server.url}/w", tmp_path / "w", sha256=sha256)
    assert (tmp_path / "w").read_bytes() == DATA
    # What arrived before a cut was not fetched again.
    whole_chunks = len(DATA) // 3 // 2**16 * 2**16
    assert server.requests[-1][2] == (f"bytes={whole_chunks}-" if fault == "cut" else None)


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.files["/w"] = DATA
    (tmp_path / "w.part").write_bytes(DATA[:1000])
    server.fault = "no ranges"
    assert download.fetch(f"{server.url}/w", tmp_path / "w", sha256=DIGEST)
    assert (tmp_path / "w").read_bytes() == DATA


def test_a_part_that_is_already_whole_is_taken(server, tmp_path):
    server.files["/w"] = DATA
    (tmp_path / "w.part").write_bytes(DATA)
    assert download.fetch(f"{server.url}/w", tmp_path / "w", sha256=DIGEST)
    assert (tmp_path / "w").read_bytes() == DATA


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_a_full_disk_is_named_and_the_next_attempt_works(server, tmp_path):
    server.files["/w"] = DATA
    (tmp_path / "w.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"no space left .*VPROMPT_CACHE"):
        download.fetch(f"{server.url}/w", tmp_path / "w", sha256=DIGEST)
    (tmp_path / "w.part").unlink()
    assert download.fetch(f"{server.url}/w", tmp_path / "w", sha256=DIGEST)


def test_what_does_not_exist_or_answer_is_named(server, tmp_path):
    with pytest.raises(UserError, match="answered 404: there is no such file"):
        download.fetch(f"{server.url}/w", tmp_path / "w", sha256=DIGEST)
    assert not download.fetch(f"{server.url}/w", tmp_path / "w", optional=True)
    with pytest.raises(UserError, match="VPROMPT_OFFLINE=1"):
        download.fetch("http://127.0.0.1:9/w", tmp_path / "w", sha256=DIGEST)


_PROGRAM = """
import sys
from pathlib import Path
from vprompt_jax.process import download
download.fetch(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])
"""


def test_two_processes_download_once(server, tmp_path):
    server.files["/w"] = DATA
    command = [sys.executable, "-c", _PROGRAM, f"{server.url}/w", str(tmp_path / "w"), DIGEST]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [p.wait() for p in processes] == [0, 0]
    assert (tmp_path / "w").read_bytes() == DATA
    assert len(server.requests) == 1


@pytest.fixture
def openai(server, tmp_path, monkeypatch):
    """The tiny golden CLIP under the name ViT-B/32."""
    monkeypatch.setenv("VPROMPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VPROMPT_OPENAI_URL", server.url)
    monkeypatch.setitem(locate.OPENAI, "ViT-B/32", (DIGEST, "ViT-B-32.pt"))
    server.files[f"/{DIGEST}/ViT-B-32.pt"] = DATA
    return server


def test_openai_by_name_then_offline(openai, tmp_path, monkeypatch, caplog):
    with pytest.raises(UserError, match="VPROMPT_OFFLINE"):
        vp.clip.load("ViT-B/32", offline=True)
    clip, variables = vp.clip.load("ViT-B/32")
    assert clip.config.text.activation == "quick_gelu"
    assert not caplog.text  # the name says what a bare file leaves open
    _, expected = vp.clip.load(GOLDEN / "openai_vit_tiny.safetensors")
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    openai.shutdown()
    monkeypatch.setenv("VPROMPT_OFFLINE", "1")
    assert vp.clip.load("ViT-B/32")[0].config == clip.config
    assert (tmp_path / "cache" / "openai" / "ViT-B-32.pt").is_file()


def hub_files(folder: Path, prefix: str) -> dict[str, bytes]:
    return {f"{prefix}/{p.name}": p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("VPROMPT_CACHE", str(tmp_path / "cache"))
    server.files |= hub_files(GOLDEN / "hf_clip_tiny", "/some/clip/resolve/main")
    return server


def test_hugging_face_by_name_then_offline(hub, caplog):
    _, expected = vp.clip.load(GOLDEN / "hf_clip_tiny")
    for name in ("some/clip", "hf-hub:some/clip"):
        clip, variables = vp.clip.load(name)
        assert clip.config.text.activation == "gelu"
        jax.tree.map(np.testing.assert_array_equal, variables, expected)
    got = [path for method, path, _ in hub.requests if method == "GET"]
    assert got.count("/some/clip/resolve/main/model.safetensors") == 1
    assert vp.clip.load("some/clip", offline=True)[0].config == clip.config
    with pytest.raises(UserError, match=r"other/clip is not in .*VPROMPT_OFFLINE"):
        vp.clip.load("other/clip", offline=True)


@pytest.mark.parametrize("vocabulary", ["tokenizer.json", "spiece.model"])
def test_siglip_by_name_comes_with_its_vocabulary(hub, vocabulary):
    hub.files |= hub_files(GOLDEN / "siglip_tiny", "/some/siglip/resolve/main")
    hub.files["/some/siglip/resolve/main/spiece.model"] = b"pieces"
    if vocabulary == "spiece.model":
        # Without the other file, the settings have to tell the ids.
        del hub.files["/some/siglip/resolve/main/tokenizer.json"]
        name = "/some/siglip/resolve/main/tokenizer_config.json"
        ids = {"1": {"content": "<eos>"}, "0": {"content": "<pad>"}}
        said = json.loads(hub.files[name]) | {"added_tokens_decoder": ids}
        hub.files[name] = json.dumps(said).encode()
    clip, _ = vp.clip.load("some/siglip")
    assert clip.vocabulary.endswith(vocabulary)
    got = [path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET"]
    assert ("spiece.model" in got) == (vocabulary == "spiece.model")
    asked = len(hub.requests)
    vp.clip.load("some/siglip", offline=True)
    assert len(hub.requests) == asked


def test_siglip_of_open_clip_by_name_comes_with_its_vocabulary(hub, tmp_path):
    from tests.clip.test_open_clip import write

    hub.files |= hub_files(write(tmp_path / "siglip"), "/some/siglip/resolve/main")
    clip, _ = vp.clip.load("some/siglip")
    assert clip.config.text.tokenizer == "canonical"
    assert clip.vocabulary.endswith("tokenizer.json")


def test_shards_and_a_revision_by_name(hub, tmp_path):
    from tests.clip.test_huggingface import sharded

    index = sharded(GOLDEN / "hf_clip_tiny", tmp_path / "cut")
    prefix = "/some/large/resolve/v2"
    hub.files |= hub_files(index.parent, prefix)
    broken = f"{prefix}/model-00002-of-00002.safetensors"
    kept = hub.files.pop(broken)
    with pytest.raises(UserError, match="answered 404"):
        vp.clip.load("some/large@v2")
    hub.files[broken] = kept  # the half of the shards that is there does not count as all
    _, variables = vp.clip.load("some/large@v2")
    _, expected = vp.clip.load(index)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_a_repository_without_weights_is_named(hub):
    with pytest.raises(UserError, match=r"some/none holds no weights .*ViT-B/32"):
        vp.clip.load("some/none")


@pytest.mark.parametrize("name", ["../nowhere", "a/b/c", "weights/clip.pt", "hf-hub:clip"])
def test_what_is_no_repository_is_not_asked_for(hub, name):
    with pytest.raises(UserError, match="no checkpoint"):
        vp.clip.load(name)
    assert not hub.requests


def test_the_token_is_sent_to_the_hub(hub, monkeypatch):
    seen = []
    monkeypatch.setenv("HF_TOKEN", "secret")
    original = Handler.answer

    def answer(self, body):
        seen.append(self.headers.get("Authorization"))
        original(self, body)

    monkeypatch.setattr(Handler, "answer", answer)
    vp.clip.load("some/clip")
    assert set(seen) == {"Bearer secret"}


def test_openai_addresses_hold_a_digest_each():
    assert len(locate.OPENAI) == 9
    assert len({digest for digest, _ in locate.OPENAI.values()}) == 9
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest, _ in locate.OPENAI.values())
