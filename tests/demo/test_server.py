"""The server: what it answers, and what it refuses."""

import base64
import concurrent.futures
import importlib.util
import json

import numpy as np
import pytest

from mae_jax.demo import server
from mae_jax.demo.trial import load
from tests.demo.test_trial import SHAPE, bomb, make_folder, png
from tests.explain.test_command import written
from tests.helpers.commands import mistake
from tests.helpers.tiny_args import tiny

BYTES = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of the application, for a masked autoencoder."""
    testclient = pytest.importorskip("starlette.testclient")
    folder = tmp_path_factory.mktemp("demo")
    run = written(folder / "run", "mae", dict(tiny("methods.mae").ARGS), SHAPE)
    trial = load(str(run), images=str(make_folder(folder / "photos")))
    app = server.make_app(trial)
    with testclient.TestClient(app, base_url="http://127.0.0.1:8000") as made:
        yield made


@pytest.fixture(scope="module")
def image(client):
    """The pixels of an example, as bytes."""
    return base64.b64decode(client.get("/info").json()["examples"][0]["pixels"])


def post(client, path, body, **more):
    """The answer to a request as the page sends it."""
    return client.post(path, content=body, headers=BYTES | more)


def test_the_page(client):
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    for name in ("page.js", "bytes.js", "style.css", "backend.js"):
        answer = client.get(f"/{name}")
        assert answer.status_code == 200, name
        # It asks for nothing elsewhere.
        assert "http://" not in answer.text and "https://" not in answer.text
    assert "fetch" in client.get("/backend.js").text
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"


def test_no_path_opens_a_file(client):
    for path in (
        "/setup.cfg",
        "/assets/page.js",
        "/server.js",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/page.js/../server.py",
        "/info/..%5c..%5csetup.cfg",
    ):
        assert client.get(path).status_code == 404, path


def test_answers(client, image):
    answer = post(client, "/reconstruct?strategy=random&ratio=0.75&seed=1", image).json()
    assert sum(answer["hidden"]) == 9 and len(answer["pictures"]) == 5
    again = post(
        client, f"/reconstruct?hidden={''.join(str(int(x)) for x in answer['hidden'])}", image
    )
    assert again.json() == answer
    assert len(post(client, "/nearest", image).json()) == 8
    opened = post(client, "/open", png(np.frombuffer(image, np.uint8).reshape(SHAPE)))
    assert base64.b64decode(opened.json()["pixels"]) == image
    assert post(client, "/predict", image).status_code == 404  # the run has learned no task


def test_ten_at_once(client, image):
    path = "/reconstruct?strategy=random&ratio=0.75&seed="
    ask = lambda seed: post(client, f"{path}{seed}", image)
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(ask, range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    assert answers[7].json() == ask(7).json() and answers[7].json() != answers[8].json()


@pytest.mark.parametrize(
    "query",
    [
        "hidden=01",
        "hidden=111111111111",
        "hidden=00000000000x",
        "strategy=random&ratio=nan&seed=0",
        "strategy=random&ratio=0.7501&seed=0",
        "strategy=random&ratio=0.75&seed=1e99",
        "strategy=random&ratio=0.75&seed=-1",
        "strategy=attention&ratio=0.75&seed=0",
        "strategy=../random&ratio=0.75&seed=0",
        "",
    ],
)
def test_wrong_masks_are_refused_in_one_line(client, image, query):
    answer = post(client, f"/reconstruct?{query}", image)
    assert answer.status_code == 422
    assert answer.json()["error"] and "\n" not in answer.json()["error"]


def test_wrong_bodies_are_refused(client, image, monkeypatch):
    answer = post(client, "/open", bomb(60_000))
    assert answer.status_code == 422 and "60000 x 60000" in answer.json()["error"]
    assert "cannot be read" in post(client, "/open", b"no image").json()["error"]
    assert post(client, "/nearest", image[1:]).status_code == 422
    assert post(client, "/nearest", image + b"1").status_code == 413
    assert client.post("/nearest", content=iter([image, image]), headers=BYTES).status_code == 413
    assert client.post("/nearest", content=image).status_code == 415
    assert client.post("/open", files={"file": ("../../a.png", image)}).status_code == 415
    assert client.put("/open", content=image).status_code == 405


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:8000"}, 200),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:8000"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": "127.0.0.1.nip.io"}, 421),
        ({"host": ""}, 421),
        ({"host": "["}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_other_pages_are_refused(client, image, headers, status):
    assert client.get("/info", headers=headers).status_code == status
    assert post(client, "/nearest", image, **headers).status_code == status
    if status != 200:
        assert "examples" not in client.get("/info", headers=headers).text


def test_where_it_listens(capsys):
    with server.listen("127.0.0.1", 0) as bound:
        host, port = bound.getsockname()
        assert host == "127.0.0.1" and port
        bound.listen()
        line = mistake(capsys, "demo", "--run", "nothing", "--port", port)
        assert line.startswith(f"--host 127.0.0.1 --port {port}: Address already in use")
    assert "outside [0, 65535]" in mistake(capsys, "demo", "--run", "nothing", "--port", 70000)
    assert "--host nothing.invalid" in mistake(
        capsys, "demo", "--run", "nothing", "--host", "nothing.invalid"
    )
    for host, alone in (
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("0.0.0.0", False),
    ):
        assert server.is_loopback(host) == alone
    assert not server.is_loopback("machine.example")


def test_mistakes(capsys, tmp_path, monkeypatch):
    assert "nothing" in mistake(capsys, "demo", "--run", tmp_path / "nothing")
    assert run_warns(capsys, tmp_path)
    assert "takes no --config" in mistake(capsys, "demo", "--run", tmp_path, "--config.seed=1")
    found = importlib.util.find_spec
    missing = lambda name: None if name in ("starlette", "uvicorn") else found(name)
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    line = mistake(capsys, "demo", "--run", tmp_path)
    assert line == "demo needs starlette and uvicorn: pip install starlette uvicorn"


def run_warns(capsys, folder):
    """Whether listening on all addresses prints a warning."""
    from tests.helpers.commands import run

    assert run("demo", "--run", folder / "nothing", "--host", "0.0.0.0") == 2
    return "warning: --host 0.0.0.0: everyone who reaches" in capsys.readouterr().err


def test_info_is_json(client):
    assert json.loads(client.get("/info").text)["max_bytes"] == 32 * 2**20
