"""Pushing an export to Hugging Face's hub and loading it from there: a loopback server stands in.

The server speaks the part of the hub's API that `huggingface_hub` uses for an upload: making a
repository, asking how each file is to be sent, large files by LFS, and the commit.
"""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml

import vprompt_jax as vp
from tests.conftest import small_config
from vprompt_jax.export import __main__ as export_command
from vprompt_jax.export import hub
from vprompt_jax.predict import __main__ as predict
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit

# huggingface_hub 2.4 hands httpx2 a file in the way that this deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "someone/digits"


class Hub(BaseHTTPRequestHandler):
    """Keeps what is pushed in `server.files`, by path."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, content, status=200):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_POST(self):
        base = f"http://{self.headers['Host']}"
        path, body = self.path, self.body
        if self.headers.get("Authorization") != "Bearer hf_token":
            self.answer({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            self.answer({"url": f"{base}/{NAME}", "id": NAME})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            mode = {True: "lfs", False: "regular"}
            self.answer({"files": [
                {"path": f["path"], "shouldIgnore": False, "oid": None,
                 "uploadMode": mode[f["path"].endswith("safetensors")]}
                for f in files
            ]})  # fmt: skip
        elif path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            self.answer({"transfer": "basic", "objects": [
                {**o, "actions": {"upload": {"href": f"{base}/lfs/{o['oid']}"}}} for o in objects
            ]})  # fmt: skip
        elif "/commit/" in path:
            for line in body.decode().splitlines():
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "file":
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "lfsFile":
                    self.server.files[value["path"]] = self.server.blobs[value["oid"]]
            self.answer({"success": True, "commitOid": "0" * 40,
                         "commitUrl": f"{base}/{NAME}/commit/{'0' * 40}"})  # fmt: skip
        else:
            self.answer({}, 404)

    def do_PUT(self):
        self.server.blobs[self.path.rpartition("/")[2]] = self.body
        self.answer(b"")

    def do_GET(self):
        name = self.path.partition("/resolve/main/")[2]
        if self.path.startswith(f"/{NAME}/") and name in self.server.files:
            self.answer(self.server.files[name])
        elif self.path.startswith(f"/api/models/{NAME}"):
            self.answer({"id": NAME, "siblings": [], "sha": "0" * 40})
        else:
            self.answer({"error": "Entry not found"}, 404)

    do_HEAD = do_GET


@pytest.fixture
def server(monkeypatch, tmp_path):
    made = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    made.files, made.blobs = {}, {}
    threading.Thread(target=made.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{made.server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    monkeypatch.setenv("VPROMPT_CACHE", str(tmp_path / "cache"))
    # Its own protocol for large files, Xet, is compiled code that this server cannot answer.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.chdir(tmp_path)
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(scope="module")
def run(tiny_path, tmp_path_factory):
    c = small_config(tiny_path)
    c.method.name, c.data.few_shot, c.optim.epochs = "vp", 8, 1
    c.optim.batch_size, c.optim.warmup_steps = 40, 1
    workdir = tmp_path_factory.mktemp("hub") / "run"
    fit(c, workdir)
    return workdir


def test_what_is_pushed_comes_back(server, run, tmp_path, capsys):
    arguments = ["--workdir", str(run), "--out", str(tmp_path / "out"), "--push", NAME]
    export_command.main(arguments)
    assert f"/{NAME}" in capsys.readouterr().out
    assert set(server.files) == {path.name for path in (tmp_path / "out").iterdir()}
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    ours, theirs = vp.load(run), vp.load(NAME)
    np.testing.assert_allclose(theirs.logits(images), ours.logits(images), rtol=1e-5, atol=1e-5)
    server.files.clear()
    assert vp.load(NAME).class_names == ours.class_names  # from the cache


def test_predict_takes_a_repository(server, run, tmp_path, capsys):
    from PIL import Image

    arguments = ["--workdir", str(run), "--out", str(tmp_path / "out"), "--push", NAME]
    export_command.main(arguments)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "dark.png")
    predict.main(["--model", NAME, str(tmp_path / "dark.png")])
    assert "dark.png" in capsys.readouterr().out


def test_the_card_has_the_metadata_that_the_hub_reads(server, run, tmp_path):
    export_command.main(["--workdir", str(run), "--out", str(tmp_path / "out")])
    _, head, text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    fields = yaml.safe_load(head)
    assert fields["pipeline_tag"] == "image-classification"
    (metric,) = fields["model-index"][0]["results"][0]["metrics"]
    accuracy = json.loads((run / "result.json").read_text())["test_accuracy"]
    assert metric["value"] == pytest.approx(accuracy, abs=1e-4)
    assert "base_model" not in fields  # a file of this machine's is no repository
    assert text.lstrip().startswith("# vp on digits")


def test_a_refusal_is_one_message(server, run, tmp_path, monkeypatch):
    export_command.main(["--workdir", str(run), "--out", str(tmp_path / "out")])
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(UserError, match=r"cannot push to .*someone/digits.*hf auth login"):
        hub.push(tmp_path / "out", NAME)
    with pytest.raises(UserError, match="a repository's name is owner/name"):
        hub.push(tmp_path / "out", "digits")


def test_a_repository_without_an_export_is_named(server):
    with pytest.raises(UserError, match="someone/else holds no export"):
        vp.load("someone/else")


def test_a_mistyped_folder_is_not_looked_for_on_the_hub(server, tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="runs/mien holds no finished run"):
        vp.load("runs/mien")
