"""Which figure draws reconstructions, and that it draws the pictures of a count and a seed."""

from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from mae_jax.figures import film, planes, reconstructions
from mae_jax.figures.figure import FigureContext
from mae_jax.figures.reconstructions import raster
from mae_jax.reconstruct import figure_for, reconstruct
from mae_jax.types import UserError

IMAGES, VOLUMES = (32, 32, 3), (4, 6, 8, 1)


class Source:
    """Five volumes without a place in space."""

    num_examples = 5
    geometry = staticmethod(lambda index: None)


class Data:
    """The data of a run."""

    source = staticmethod(lambda split: Source)


def context(pictures, folder=None):
    """A run whose pictures are `pictures(count, seed)`."""
    rest = dict(lines=(), results={}, metrics={}, split="test", predict=None)
    return FigureContext(method=None, step=1, folder=folder, data=Data(), pictures=pictures, **rest)


def noise(count, seed):
    """Other pictures for each seed."""
    shape = (count, *VOLUMES)
    return {"original": np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)}


@pytest.mark.parametrize(
    ("image", "configured", "spec", "name"),
    [
        (IMAGES, "auto", None, "reconstructions"),
        (IMAGES, "curves|film", None, "reconstructions"),
        (VOLUMES, "auto", None, "planes"),
        (VOLUMES, "curves|reconstructions", None, "planes"),
        (VOLUMES, "curves|film(frames=2)", None, "film"),
        (VOLUMES, "curves|planes|film", "film(count=1)", "film"),
        (VOLUMES, "curves|film", "reconstructions", "reconstructions"),
    ],
)
def test_the_figure_is_that_of_the_run(image, configured, spec, name):
    assert figure_for(image, configured, spec).name == name


def test_a_figure_without_reconstructions_is_refused():
    with pytest.raises(UserError, match="--figure curves draws no reconstructions: choose"):
        figure_for(VOLUMES, "auto", "curves")


@pytest.mark.parametrize("module", [planes, film, reconstructions])
def test_figures_draw_the_pictures_of_a_count_and_a_seed(module, tmp_path):
    """As at the end of training, where the seed is 0."""
    figure = module.make(count=2)
    path = figure.draw(context(noise, tmp_path))[0]
    pixels = (255 * matplotlib.image.imread(path)[..., :3]).round().astype(np.uint8)
    sheet = lambda count, seed: raster(figure.sheet(context(noise), count, seed))
    np.testing.assert_array_equal(sheet(None, 0), pixels)
    assert (sheet(None, 1) != pixels).any()
    assert sheet(3, 0).shape != pixels.shape


def test_methods_without_pictures_are_refused(tmp_path):
    run = SimpleNamespace(method=SimpleNamespace(pictures=lambda: None), name="rotation")
    figure = figure_for(VOLUMES, "auto")
    with pytest.raises(UserError, match="rotation: the method or its target predicts nothing"):
        reconstruct(run, None, tmp_path / "a.png", figure=figure, workdir=tmp_path)
