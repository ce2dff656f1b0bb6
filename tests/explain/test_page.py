"""The page as text: it makes no request, names every picture, and cannot be broken by names."""

import json
import re
import types
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from mae_jax.explain import heat, page, write
from mae_jax.explain.network import Network
from mae_jax.explain.subject import Subject
from mae_jax.explain.view import SECTIONS, Chart, Shown, Vectors, View, Weights
from mae_jax.methods import make_method
from mae_jax.types import UserError
from tests.helpers.jobs import ROOT

NAME = 'runs/</script><img src="https://example.org/a.png">'


class Tags(HTMLParser):
    """Tags of a page with their attributes, in order."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        """Called by the parser."""
        self.found.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def subject():
    """Three images of 2 x 3 patches, two of them with a class of a strange name."""
    args = dict(encoder="vit(width=16, depth=1, heads=2, patch=4)")
    network = Network(
        name=NAME,
        kind="mae",
        spec=args["encoder"],
        method=make_method(name="mae", args=args),
        params={},
        extra={},
        classes=(),
    )
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 1)).astype(np.uint8)
    return Subject(
        network=network,
        against=None,
        images=images,
        sample=images,
        labels=np.array([0, -1, 1]),
        shown=np.arange(3),
        class_names=("a cat", "<b>"),
    )


@pytest.fixture(scope="module")
def shown(subject):
    rng = np.random.default_rng(1)
    shades, peaks = heat.shades(rng.random((2, 1, 2, 7, 6)))
    maps = Weights(shades, peaks, ["block 1"], ["head 1", "head 2"], True)
    figure = Figure((2, 2))
    figure.subplots().plot([1, 2])
    tiles = {"image": heat.rgb(subject.images), "error": heat.rgb(255 - subject.images)}
    return {
        "one": Shown(numbers={"a": [1.5]}, findings=["1 < 2"], maps=maps),
        "two": Shown(numbers={}, maps=Vectors({"a": rng.normal(size=(3, 6, 4))})),
        "three": Shown(
            numbers={}, tiles=tiles, charts={"three": Chart(heat.chart_png(figure), "A line.")}
        ),
    }


@pytest.fixture(scope="module")
def text(subject, shown):
    views = [
        View(
            name=name,
            title=f"View {name}",
            section=section,
            reads="Look.",
            misleads="At night.",
            draw=None,
        )
        for name, section in zip(shown, SECTIONS, strict=False)
    ]
    return page.page(subject, shown, views, {"Other": "it has no <attention>"})


def test_it_asks_for_nothing(text):
    tags = Tags(text).found
    assert not {"link", "iframe", "object"} & {tag for tag, a in tags if "https" in str(a)}
    for tag, attributes in tags:
        for name in ("src", "href", "data"):
            value = attributes.get(name, "")
            assert value.startswith(("data:", "#")) or not value, (tag, value[:80])
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|import\(", text)
    policy = next(a for tag, a in tags if a.get("http-equiv"))["content"]
    assert "default-src 'none'" in policy and "connect-src" not in policy


def test_every_picture_has_a_text(text, subject):
    pictures = [attributes for tag, attributes in Tags(text).found if tag == "img"]
    assert all(attributes["alt"] for attributes in pictures)
    assert len(pictures) == 3 + 3 * 2 + 1
    # Each image is in the page once, and copied by the script where it is shown again.
    assert [p["data-image"] for p in pictures if "data-image" in p] == ["0", "1", "2"]
    assert subject.titles() == ["image 1: a cat", "image 2", "image 3: <b>"]


def test_names_stay_names(text):
    tags = Tags(text).found
    assert sum(tag == "script" for tag, _ in tags) == 2 and not any(tag == "b>" for tag, _ in tags)
    assert "&lt;/script&gt;" in text and "it has no &lt;attention&gt;" in text
    assert "1 &lt; 2" in text
    block = text.partition('id="data">')[2].partition("</script>")[0]
    content = json.loads(block)
    assert content["grid"] == [2, 3] and content["titles"][2] == "image 3: <b>"
    assert content["maps"]["one"]["shape"] == [2, 1, 2, 7, 6]
    assert len(content["maps"]["two"]["vectors"][0]["scales"]) == 4
    assert content["maps"].keys() == {"one", "two"}
    assert re.findall(r'<div class="picker" data-of="(\w+)">', text) == ["one", "two"]


def test_the_view_of_the_document(subject):
    """Its code runs as it is."""
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/explain.md").read_text(), re.M | re.S
    )
    scope = {}
    exec(code, scope)
    view = scope["make"]()
    patches = np.full((3, 6, 4), 2.0)
    found = view.draw(types.SimpleNamespace(patches=patches))
    assert view.check(subject) is None and found.findings == ["4.00 on average"]
    assert found.numbers["norms"] == [[4.0] * 6] * 3
    assert f'<section id="norms"><h3>{view.title}' in page.part(subject, view, found)


def test_views_are_found_by_name_and_ordered():
    every = write.make_views(None)
    sections = [view.section for view in every]
    assert sections == sorted(sections, key=list(SECTIONS).index) and len(every) == 11
    for view in every:
        assert len(view.reads.split()) > 10 and len(view.misleads.split()) > 10
    (one,) = write.make_views("attention(blocks=(0, -1))")
    assert one.name == "attention"
    assert [v.name for v in write.make_views("cka, layers, colors")] == ["colors", "layers", "cka"]
    with pytest.raises(UserError, match="explain has no 'colours'.*did you mean"):
        write.make_views("colours")
    with pytest.raises(UserError, match="explain has no 'page'"):
        write.make_views("page")
    with pytest.raises(UserError, match="name each view once"):
        write.make_views("cka|cka")
    for wrong in ("mask_ratio(ratios=(1.0,))", "reconstruction(masks=1)", "layers(k=0)"):
        with pytest.raises(UserError):
            write.make_views(wrong)
