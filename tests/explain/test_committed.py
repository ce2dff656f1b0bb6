"""The pages below configs/results/explain: small, of no one machine, and as the document says."""

import html
import json

import pytest

from mae_jax.explain.write import make_views
from tests.helpers.jobs import ROOT

RESULTS = ROOT / "configs" / "results" / "explain"
PAGES = sorted(RESULTS.glob("*/page.html"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.parent.name)
def test_pages_are_small_and_complete(path):
    numbers = json.loads((path.parent / "numbers.json").read_text())
    text = path.read_text()
    assert len(text.encode()) <= 700_000 and not {*path.parent.iterdir()} - {
        path,
        path.parent / "numbers.json",
        *path.parent.glob("*.png"),
    }
    assert numbers["run"] == f"runs/{path.parent.name}"
    titles = {view.name: view.title for view in make_views(None)}
    assert {*titles} == {*numbers["views"]} | {
        n for n, t in titles.items() if t in numbers["left_out"]
    }
    for name in numbers["views"]:
        assert f'<section id="{name}"><h3>{titles[name]}' in text
        assert all(html.escape(finding) in text for finding in numbers["findings"][name])


def test_the_document_has_the_numbers_of_the_page_of_the_quickstart():
    views = json.loads((RESULTS / "quickstart" / "numbers.json").read_text())["views"]
    text = (ROOT / "docs" / "explain.md").read_text().partition("`mae-jax explain --run runs/quick")
    text = text[2].partition("\n## ")[0]
    pixels, accuracy = views["distance"]["pixels"], views["layers"]["accuracy"]
    values = [sum(pixels[0]) / 3, sum(pixels[-1]) / 3, views["distance"]["uniform"]]
    values += [100 * accuracy["cls"][-1], 100 * accuracy["mean"][-1]]
    expected = [f"{value:.1f}" for value in values]
    expected += [f"{100 * views['colors']['variance_by_position']:.0f}%"]
    expected += [f"{views['spectrum']['rankme'][-1]:.0f} of 96"]
    assert [value for value in expected if value not in text] == []
    assert all(max(values) == values[-1] for values in accuracy.values())


def test_the_document_has_the_numbers_of_the_page():
    views = json.loads((RESULTS / "scenes" / "numbers.json").read_text())["views"]
    text = (ROOT / "docs" / "explain.md").read_text().partition("## An example")[2]
    text = " ".join(text.partition("\n## ")[0].split())
    mean = lambda values: sum(values) / len(values)
    pixels, layers, masked = views["distance"]["pixels"], views["layers"], views["mask_ratio"]
    far = [mean(pixels[0]), mean(pixels[-1]), views["distance"]["uniform"], min(map(min, pixels))]
    decimals = [f"{value:.1f}" for value in far]
    shares = [views["rollout"]["own_patch"], *layers["accuracy"]["mean"], layers["most_frequent"]]
    decimals += [f"{100 * share:.1f}%" for share in shares]
    colors = views["colors"]
    shares = [views["rollout"]["difference_of_rows"], colors["variance_by_position"]]
    shares += [sum(colors["variance"]), *masked["same_neighbors"][3:]]
    decimals += [f"{100 * share:.0f}%" for share in shares]
    values = [*masked["cosine"][3:], views["cka"]["between_layers"][0][-1]]
    decimals += [f"{value:.2f}" for value in values]
    decimals += [f"{views['reconstruction']['mean_error']:.3f}"]
    decimals += [f"{views['spectrum']['rankme'][-1]:.0f} of 128"]
    missing = [value for value in decimals if value not in text]
    assert not missing
    pairs = zip(layers["accuracy"]["cls"], layers["accuracy"]["mean"], strict=True)
    assert all(token < patches for token, patches in pairs)
    assert sorted(colors["foreground"])[0] == 0 and sorted(colors["foreground"])[1] > 0
    assert sorted(colors["foreground"])[-1] == 1 and sorted(colors["foreground"])[-2] < 1
