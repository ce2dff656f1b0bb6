"""The picture of reconstructions: which rows it has, in which order, and what they show."""

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from mae_jax import spec
from mae_jax.figures.figure import FigureContext
from mae_jax.figures.reconstructions import draw_pictures, make
from mae_jax.types import Method, UserError

SPACES = {1: (24,), 2: (4, 6), 3: (5, 4, 6), 4: (3, 5, 4, 6)}
"""Rank -> size of its images."""


class Drawing(Method):
    """A method that draws, or not."""

    offers = init = loss = predict = None
    draws = True

    def pictures(self):
        """Nothing is called here."""
        return (lambda *_: {}) if self.draws else None


class Silent(Drawing):
    """One that does not."""

    draws = False


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws pictures; gives the labels of the rows and, for each, what its axes show: arrays of
    images, or the lines of signals.
    """

    def draw(pictures):
        figures, save = [], Figure.savefig
        monkeypatch.setattr(
            Figure, "savefig", lambda self, path: (figures.append(self), save(self, path))
        )
        path = draw_pictures(pictures, tmp_path / "picture.png")
        monkeypatch.undo()
        assert np.ptp(matplotlib.image.imread(path)) > 0
        count = len(next(iter(pictures.values())))
        axes = figures[0].axes
        labels = [axis.get_ylabel() for axis in axes[::count]]
        rows = [axes[start : start + count] for start in range(0, len(axes), count)]
        return labels, [np.stack([_content(axis) for axis in row]) for row in rows]

    return draw


def _content(axis):
    """[H, W, 3] or [H, W] of an image, [L, C] of lines."""
    if axis.images:
        return axis.images[0].get_array()
    return np.stack([line.get_ydata() for line in axis.lines], axis=-1)


def pictures_of(*names, rank=2, channels=3, count=3):
    """Different images of each kind."""
    rng = np.random.default_rng(0)
    shape = (count, *SPACES[rank], channels)
    return {name: rng.integers(0, 256, shape).astype(np.uint8) for name in names}


def context(folder, pictures):
    """Of a method whose pictures these are."""
    rest = dict(lines=(), results={}, metrics={}, data=None, split="test", predict=None)
    given = lambda count, seed: {name: images[:count] for name, images in pictures.items()}
    return FigureContext(method=Drawing(), step=1, folder=folder, pictures=given, **rest)


def test_rows_are_what_comes_in_its_order_and_names_are_labels(drawn):
    pictures = pictures_of("sample", "original", "network output of all the patches")
    labels, shown = drawn(pictures)
    assert labels == ["sample", "original", "network output of all\nthe patches"]
    for images, (name, expected) in zip(shown, pictures.items(), strict=True):
        np.testing.assert_array_equal(images, expected, name)


@pytest.mark.parametrize("channels", [1, 5])
def test_of_other_numbers_of_channels_the_first_is_shown(drawn, channels):
    """Also beside a row in color."""
    pictures = pictures_of("original") | pictures_of("sample", channels=channels)
    _, shown = drawn(pictures)
    np.testing.assert_array_equal(shown[0], pictures["original"])
    np.testing.assert_array_equal(shown[1], pictures["sample"][..., 0])


@pytest.mark.parametrize(("rank", "channels"), [(1, 1), (1, 2), (3, 1), (3, 3), (4, 3)])
def test_images_of_any_rank(drawn, rank, channels):
    """All channels of signals; of volumes and videos the slice in the middle."""
    pictures = pictures_of("original", "masked", rank=rank, channels=channels)
    labels, shown = drawn(pictures)
    expected = pictures["masked"]
    if rank > 2:
        expected = expected[:, *(size // 2 for size in SPACES[rank][:-2])]
        assert labels[1] == "masked\n(middle slice)"
    else:
        assert labels[1] == "masked"
    if rank > 1 and channels == 1:
        expected = expected[..., 0]
    np.testing.assert_array_equal(shown[1], expected)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_for_tensorboard(tmp_path, rank):
    """Images are shown pixel by pixel."""
    pictures = pictures_of("original", "network output", rank=rank, count=4)
    pixels, text = make(count=2).log(context(tmp_path, pictures))
    slices = " (middle slice)" * (rank > 2)
    assert text == f"Rows, from the top: original{slices}; network output{slices}"
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3 and np.ptp(pixels) > 0
    if rank > 1:
        assert pixels.shape == (2 * 4, 2 * 6, 3)
        second = pictures["network output"][1]
        np.testing.assert_array_equal(pixels[4:, 6:], second if rank == 2 else second[2])


def test_rows_of_several_sizes_are_drawn_for_tensorboard_too(tmp_path):
    pictures = pictures_of("original") | {"small": np.zeros((3, 2, 3, 1), np.uint8)}
    pixels, _ = make().log(context(tmp_path, pictures))
    assert pixels.shape[2] == 3 and np.ptp(pixels) > 0


def test_it_writes_the_files_that_it_names(tmp_path):
    figure = spec.build("reconstructions(count=2)", "figures")
    (path,) = figure.draw(context(tmp_path, pictures_of("original")))
    assert [path] == [tmp_path / name for name in figure.files] and path.is_file()


def test_what_cannot_draw_is_told_at_the_start():
    assert make().check(Drawing()) is None
    assert make().check(Silent()) == "the method or its target predicts nothing that can be drawn"
    with pytest.raises(UserError, match="count=0 must be at least 1"):
        make(count=0)
