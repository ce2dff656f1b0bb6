"""The page, clicked through in a headless Chromium."""

import concurrent.futures
import contextlib
import json
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image

from tests.demo.test_trial import bomb, make_folder, png
from tests.explain.test_command import written
from tests.helpers.browser import Browser, find_chromium
from tests.helpers.jobs import environment
from tests.helpers.tiny_args import tiny

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium: apt install chromium"),
]
DONE = "document.body.getAttribute('aria-busy') === 'false'"
NAME = "..%2f..%2fetc <img src=x onerror=document.title='hacked'>.png"


@contextlib.contextmanager
def serving(run, photos):
    """The address of a server of a run, which Ctrl-C ends."""
    command = [sys.executable, "-m", "mae_jax", "demo", "--run", run, "--images", photos]
    command = [*map(str, command)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(devices=1)
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("http://127.0.0.1:"), line
            yield line.split()[0]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) in (0, 130)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A running browser."""
    pytest.importorskip("websockets")
    with Browser(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of the page of a masked autoencoder."""
    folder = tmp_path_factory.mktemp("demo")
    run = written(folder / "run", "mae", dict(tiny("methods.mae").ARGS), (16, 12, 3))
    with serving(run, make_folder(folder / "photos")) as found:
        yield found


def turn(page, act, *arguments):
    """Does something, and waits until what follows has been computed."""
    before = page.run("Number(document.body.dataset.turn)")
    act(*arguments)
    page.wait(f"Number(document.body.dataset.turn) > {before} && {DONE}")


def opened(browser, address, **options):
    """A page that is ready."""
    page = browser.page(address, **options)
    page.wait("document.body.dataset.ready === 'yes'")
    return page


def pixels(page, number):
    """The pixels of a picture of the reconstruction, as a text."""
    return page.run(
        f"""(() => {{
          const canvas = document.querySelectorAll("#reconstruct canvas")[{number}];
          const {{ width, height }} = canvas;
          return canvas.getContext("2d").getImageData(0, 0, width, height).data.join();
        }})()"""
    )


def pressed(page):
    """Numbers of the masked patches, from 1."""
    return page.run(
        """[...document.querySelectorAll("#grid button")].flatMap(
          (button, k) => button.getAttribute("aria-pressed") === "true" ? [k + 1] : [])"""
    )


def choose(page, id_, value):
    """Changes the value of a control as a user does."""
    script = f"""(() => {{
      const control = document.getElementById({json.dumps(id_)});
      control.value = {json.dumps(value)};
      control.dispatchEvent(new Event("input", {{ bubbles: true }}));
    }})()"""
    page.run(script)


def text(page, selector):
    """The text of an element."""
    return page.run(f"document.querySelector({json.dumps(selector)}).textContent")


def test_clicks(browser, address, tmp_path):
    page = opened(browser, address)
    labels = "[...document.querySelectorAll('#reconstruct figcaption')].map((x) => x.textContent)"
    assert page.run(labels)[0] == "original" and len(page.run(labels)) == 6
    assert len(pressed(page)) == 9 and "75%, 9 of 12 patches" in text(page, "#share")

    first = pixels(page, 0)
    turn(page, page.click, "#examples button:nth-child(2)")
    assert pixels(page, 0) != first
    before = pixels(page, 1)
    turn(page, page.click, "#another")
    assert pixels(page, 1) != before

    page.run("document.getElementById('ratio').focus()")
    turn(page, page.key, "Home")
    assert len(pressed(page)) == 1
    turn(page, choose, page, "strategy", "grid")
    turn(page, page.key, "End")
    assert len(pressed(page)) == 11

    turn(page, page.click, "#show")
    assert pressed(page) == [] and page.run("document.getElementById('ratio').disabled")
    patches = [f"#grid button:nth-child({k})" for k in (1, 2, 5)]
    turn(page, page.drag, *patches)
    assert pressed(page) == [1, 2, 5] and text(page, "#share").startswith("25%, 3 of 12")
    page.key("ArrowRight")
    turn(page, page.key, " ", " ")
    assert pressed(page) == [1, 2, 5, 6]
    turn(page, page.click, "#invert")
    assert pressed(page) == [3, 4, *range(7, 13)]
    turn(page, choose, page, "strategy", "random")
    assert len(pressed(page)) == 11

    path = tmp_path / NAME.replace("/", "%2f")
    path.write_bytes(png(np.full((40, 30, 3), 200, np.uint8)))
    turn(page, page.upload, "#file", path)
    assert text(page, "#name") == path.name and page.run("document.title") == "Try run"
    assert set(pixels(page, 0).split(",")) == {"200", "255"}
    assert len(page.run("[...document.querySelectorAll('#nearest canvas')].map((x) => 1)")) == 8

    for content, message in (
        (b"no image", "this image cannot be read"),
        (bomb(60_000), "60000 x 60000 pixels"),
        (b"0" * (33 * 2**20), "32 MB"),
    ):
        broken = tmp_path / "broken.png"
        broken.write_bytes(content)
        page.upload("#file", broken)
        page.wait(f"document.getElementById('problem').textContent.includes({json.dumps(message)})")
    turn(page, page.upload, "#file", path)
    assert page.run("document.getElementById('problem').hidden")

    assert all(one.startswith((address, "data:")) for one in page.requests())
    errors = [one for one in page.complaints() if "422" not in json.dumps(one)]
    assert not errors, errors


def test_two_browsers(browser, address):
    pages = [opened(browser, address), opened(browser, address, width=390)]
    for page in pages:
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
    turn(pages[0], choose, pages[0], "seed", "5")
    turn(pages[1], pages[1].click, "#examples button:nth-child(3)")
    assert pixels(pages[0], 0) != pixels(pages[1], 0)
    alone = pixels(pages[0], 1)
    turn(pages[0], choose, pages[0], "seed", "6")
    turn(pages[0], choose, pages[0], "seed", "5")
    assert pixels(pages[0], 1) == alone


def test_ten_at_once(address):
    size = 16 * 12 * 3

    def ask(seed):
        request = urllib.request.Request(
            f"{address}reconstruct?strategy=random&ratio=0.75&seed={seed}",
            data=bytes(size),
            headers={"Content-Type": "application/octet-stream"},
        )
        with urllib.request.urlopen(request, timeout=100) as answer:
            return len(json.load(answer)["pictures"])

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        assert list(pool.map(ask, range(10))) == [5] * 10


def test_a_classifier(browser, tmp_path):
    own = tiny("tasks.finetune")
    run = written(tmp_path / "run", "tasks.finetune", dict(own.ARGS), own.IMAGE)
    (run / "classes.json").write_text(json.dumps({"label": ["night", "day", "<b>", "fog"]}))
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        pixels = np.full((16, 12, 3), 80 * number, np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    with serving(run, photos) as address:
        page = opened(browser, address)
        rows = page.run(
            "[...document.querySelectorAll('#predict .rows > div')].map((x) => x.innerText)"
        )
        assert len(rows) == 4 and sorted(row.split()[0] for row in rows)[0] == "<b>"
        assert page.run("document.getElementById('mask').hidden")
        assert "Reconstruction" in text(page, "#absent")
        assert "its decoder was left out" in text(page, "#absent")
