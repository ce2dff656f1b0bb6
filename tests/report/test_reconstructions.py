"""The picture of reconstructions: which rows it has, in which order, and what they show."""

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from mae_jax.report.reconstructions import ROWS, draw_reconstructions
from mae_jax.types import UserError


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws pictures; gives the labels of the rows and the arrays that are shown in each."""

    def draw(pictures):
        figures, save = [], Figure.savefig
        monkeypatch.setattr(
            Figure, "savefig", lambda self, path: (figures.append(self), save(self, path))
        )
        path = draw_reconstructions(pictures, tmp_path / "picture.png")
        monkeypatch.undo()
        assert np.ptp(matplotlib.image.imread(path)) > 0
        count = len(pictures["original"])
        axes = figures[0].axes
        labels = [axis.get_ylabel() for axis in axes[::count]]
        shown = [
            np.stack([a.images[0].get_array() for a in axes[i : i + count]])
            for i in range(0, len(axes), count)
        ]
        return labels, shown

    return draw


def pictures_of(*names, channels=3):
    """Three different images [4, 6] of each kind."""
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (3, 4, 6, channels)).astype(np.uint8) for name in names}


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (
            ("sample", "reconstruction", "original"),
            ["original", "reconstruction", "samples from the prior"],
        ),
        (
            ("colorized", "original", "grey"),
            ["original", "grey\n(what the encoder sees)", "colorized"],
        ),
        (
            ("original", "masked", "raw", "denormalized", "pasted"),
            [ROWS[name] for name in ("original", "masked", "raw", "denormalized", "pasted")],
        ),
        (("raw", "original"), ["original", "network output, raw"]),
    ],
    ids=str,
)
def test_rows_are_those_that_there_are_in_the_order_of_the_table(drawn, names, labels):
    pictures = pictures_of(*names)
    found, shown = drawn({"hidden": np.zeros((3, 6), bool), "mask": np.ones(3, bool), **pictures})
    assert found == labels
    order = [name for name in ROWS if name in names]
    for name, images in zip(order, shown, strict=True):
        np.testing.assert_array_equal(images, pictures[name])


def test_a_target_that_was_not_normalised_has_one_row_of_output(drawn):
    pictures = pictures_of("original", "raw", "pasted")
    labels, _ = drawn({**pictures, "denormalized": pictures["raw"].copy()})
    assert labels == ["original", "network output", ROWS["pasted"]]


@pytest.mark.parametrize("channels", [1, 5])
def test_of_other_numbers_of_channels_the_first_is_shown(drawn, channels):
    pictures = pictures_of("original", "sample", channels=channels)
    _, shown = drawn(pictures)
    np.testing.assert_array_equal(shown[1], pictures["sample"][..., 0])


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"\['hidden'\].*original"):
        draw_reconstructions(pictures_of("hidden"), tmp_path / "picture.png")
