"""Downloads that nothing but a look at the file tells from good ones."""

import http.server
import os
import threading

import pytest

import vprompt_jax as vp
from tests.conftest import GOLDEN
from tests.hostile import refused
from vprompt_jax.clip.checkpoints import formats
from vprompt_jax.process import download

WHOLE = {
    "/own/er/resolve/main/model.safetensors": (GOLDEN / "openai_vit_tiny.safetensors").read_bytes(),
    "/own/er/resolve/main/config.json": b"{}" + b" " * 50,
}


class Network(http.server.BaseHTTPRequestHandler):
    """A server, and what may lie between: `server.fault` is "page", "half" or None."""

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        content = WHOLE.get(self.path)
        if self.server.fault == "page":
            content = b"\n<!DOCTYPE html><html><body>Log in to the network</body></html>"
        self.send_response(200 if content else 404)
        self.send_header("Connection", "close")
        self.end_headers()  # no Content-Length: the connection's end is the file's
        if content and self.command == "GET":
            half = self.server.fault == "half" and self.path.endswith(".safetensors")
            self.wfile.write(content[: len(content) // 2] if half else content)


@pytest.fixture
def network(tmp_path, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Network) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.fault = None
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("VPROMPT_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("VPROMPT_OFFLINE", raising=False)
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "fault, message", [("page", "a web page in place of the file"), ("half", "was discarded")]
)
def test_a_bad_answer_is_not_kept_and_the_next_attempt_works(network, tmp_path, fault, message):
    network.fault = fault
    for _ in range(2):
        with refused(message):
            vp.clip.load("own/er", activation="quick_gelu")
    kept = {p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    assert {name for name in kept if not name.endswith(".lock")} <= {"config.json"}
    network.fault = None
    assert vp.clip.load("own/er", activation="quick_gelu")[0].config


def test_a_file_without_digest_is_checked_before_it_is_kept(network, tmp_path):
    url = f"{os.environ['HF_ENDPOINT']}/own/er/resolve/main/model.safetensors"
    network.fault = "half"
    with refused("was discarded"):
        download.fetch(url, tmp_path / "w", check=formats.read_tensors)
    assert not (tmp_path / "w").exists()
    network.fault = None
    assert download.fetch(url, tmp_path / "w", check=formats.read_tensors)
    assert (tmp_path / "w").read_bytes() == next(iter(WHOLE.values()))
