"""Uploads to stand-ins for the hub: a class that keeps what it gets, and a server that refuses."""

import http.server
import importlib
import shutil
import threading
import types

import numpy as np
import pytest

import mae_jax
from mae_jax import weights
from tests.helpers.commands import mistake, run
from tests.weights import models

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def api(monkeypatch, tmp_path):
    """A stand-in for HfApi: what it was asked, and a copy of what it got."""
    kept = types.SimpleNamespace(folder=tmp_path / "uploaded", calls=[], public=False)

    class Fake:
        def __init__(self, token):
            kept.token = token

        def create_repo(self, repo, private, exist_ok):
            kept.calls.append((repo, private, exist_ok))
            return f"https://hub/{repo}"

        def repo_info(self, repo):
            return types.SimpleNamespace(private=not kept.public)

        def upload_folder(self, repo_id, folder_path, commit_message, ignore_patterns):
            kept.calls.append((repo_id, commit_message))
            shutil.copytree(folder_path, kept.folder)

    monkeypatch.setattr(hub, "HfApi", Fake)
    return kept


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_a_run_is_exported_with_its_card(api, runs, capsys):
    assert run("weights", "push", "--run", runs["mae"], "--repo", "org/name") == 0
    assert capsys.readouterr().out == "uploaded to https://hub/org/name\n"
    assert api.calls == [("org/name", None, True), ("org/name", "Upload a model of mae_jax")]
    assert names(api.folder) == [
        "README.md",
        "config.json",
        "figures/curves.png",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    text = (api.folder / "README.md").read_text()
    assert "library_name: transformers" in text and "](figures/curves.png)" in text
    assert "ViTMAEForPreTraining.from_pretrained('org/name')" in text
    assert (
        "mae_jax.load('hf://org/name')" in text
        and "mae-jax weights import hf://org/name --out" in text
    )
    assert str(runs["mae"]) not in text, "readers do not have it"
    assert api.token is None


def test_our_own_layout_holds_every_run(api, runs, capsys, monkeypatch):
    """Also what no other layout holds, and its transforms; it loads from the hub."""
    command = ["weights", "push", "--run", runs["finetune"], "--repo", "org/name"]
    assert "(or --layout mae_jax, which holds every model)" in mistake(capsys, *command)
    assert run(*command, "--layout", "mae_jax", "--private") == 0
    assert api.calls[0] == ("org/name", True, True)
    assert {"weights.safetensors", "config.json", "README.md"} <= {*names(api.folder)}
    monkeypatch.setattr(weights, "from_hub", lambda source: api.folder)
    found, own = mae_jax.load("hf://org/name"), mae_jax.load(runs["finetune"])
    assert (found.name, found.transform, found.image_shape) == (
        "tasks.finetune",
        own.transform,
        own.image_shape,
    )
    np.testing.assert_array_equal(found.params["head"]["kernel"], own.params["head"]["kernel"])


def test_a_folder_is_uploaded_as_it_is(api, tmp_path, monkeypatch, capsys, runs):
    folder = tmp_path / "mine"
    weights.write_run(models.mae(depth=1), folder)
    monkeypatch.setenv("HF_TOKEN", " secret\n")
    command = ["weights", "push", "--path", folder, "--repo", "org/name", "--token-from-env"]
    assert run(*command) == 0
    assert names(api.folder) == ["config.json", "weights.safetensors"] and api.token == "secret"
    monkeypatch.delenv("HF_TOKEN")
    assert "HF_TOKEN is not set" in mistake(capsys, *command)
    push = ["weights", "push", "--repo", "org/name"]
    assert "is the workdir of a run" in mistake(capsys, *push, "--path", runs["mae"])
    assert "no such folder" in mistake(capsys, *push, "--path", tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "has no weights" in mistake(capsys, *push, "--path", tmp_path / "empty")
    assert "--layout is for --run" in mistake(capsys, *push, "--path", folder, "--layout", "hf")
    assert "not allowed with" in mistake(capsys, *push, "--path", folder, "--run", folder)


def test_private_is_not_put_where_all_can_read(api, tmp_path, capsys):
    weights.write_run(models.mae(depth=1), tmp_path / "mine")
    api.public = True
    command = ["weights", "push", "--path", tmp_path / "mine", "--repo", "org/name", "--private"]
    assert "org/name exists and is public" in mistake(capsys, *command)
    assert not api.folder.exists()


@pytest.fixture
def server(monkeypatch):
    """A server in place of the hub, which answers everything with the status server.code."""
    kept = types.SimpleNamespace(code=401)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(kept.code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    kept.url = f"http://127.0.0.1:{listening.server_port}"
    importlib.import_module("huggingface_hub.constants")  # the package imports it when needed
    monkeypatch.setattr(hub.constants, "ENDPOINT", kept.url)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    kept.stop = lambda: (listening.shutdown(), listening.server_close())
    yield kept
    kept.stop()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (401, "org/name: not logged in to the hub, or with a token that may not write: log in"),
        (403, "org/name: there is no account 'org', or this login may not write there"),
        (404, "org/name: there is no account 'org', or this login may not write there"),
        (400, "org/name: the hub refused the upload ("),
    ],
)
def test_refusals_of_the_hub_are_one_line(server, tmp_path, capsys, code, said):
    weights.write_run(models.mae(depth=1), tmp_path / "mine")
    server.code = code
    command = ["weights", "push", "--path", tmp_path / "mine", "--repo"]
    assert mistake(capsys, *command, "org/name").startswith(said)


def test_no_network_and_no_name(server, tmp_path, capsys):
    weights.write_run(models.mae(depth=1), tmp_path / "mine")
    command = ["weights", "push", "--path", tmp_path / "mine", "--repo"]
    for repo in ("name", "a/b/c", "/name"):
        assert f"--repo {repo}: write org/name" in mistake(capsys, *command, repo)
    assert "--repo org/a b is no name on the hub" in mistake(capsys, *command, "org/a b")
    server.stop()
    server.stop = lambda: None
    line = mistake(capsys, *command, "org/name")
    assert line.startswith("org/name could not be uploaded (") and "check the network" in line
