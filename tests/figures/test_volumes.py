"""Pictures of volumes in three planes, and of clips as films."""

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from mae_jax.data.volume_geometry import VolumeGeometry
from mae_jax.figures import film, planes, segmentation
from mae_jax.figures.figure import FigureContext
from mae_jax.ops import planes as ops
from mae_jax.types import Method, UserError

rng = np.random.default_rng(0)
VOLUME = rng.integers(0, 256, (3, 4, 5, 2)).astype(np.uint8)


def test_planes_are_upright_and_have_the_proportions_of_the_voxels():
    axial, coronal, sagittal = ops.planes(VOLUME, (1, 2, 3))
    for y, x in np.ndindex(4, 5):
        np.testing.assert_array_equal(axial[3 - y, x], VOLUME[1, y, x])
    for z, x in np.ndindex(3, 5):
        np.testing.assert_array_equal(coronal[2 - z, x], VOLUME[z, 2, x])
    for z, y in np.ndindex(3, 4):
        np.testing.assert_array_equal(sagittal[2 - z, y], VOLUME[z, y, 3])
    wide = ops.planes(VOLUME, (1, 2, 3), (3.0, 1.0, 0.5))
    assert [x.shape[:2] for x in wide] == [(8, 5), (18, 5), (18, 8)]
    np.testing.assert_array_equal(wide[1], coronal.repeat(6, axis=0))
    np.testing.assert_array_equal(wide[2], sagittal.repeat(6, axis=0).repeat(2, axis=1))
    odd = ops.planes(VOLUME, (1, 2, 3), (1.5, 1.0, 1.0))[1]
    places = [int((n + 0.5) * 3 / 4) for n in range(4)]
    np.testing.assert_array_equal(odd, coronal[places])


def test_pictures_are_joined_on_white():
    a, b = np.full((2, 3, 1), 10, np.uint8), np.full((4, 1, 1), 20, np.uint8)
    found = ops.joined([a, b])[..., 0]
    white = 255
    assert found.tolist() == [
        [10, 10, 10, white, white, 20],
        [10, 10, 10, white, white, 20],
        [white, white, white, white, white, 20],
        [white, white, white, white, white, 20],
    ]
    both = ops.same_size([a, b])
    assert both.shape == (2, 4, 3, 1) and both[0, 3, 0] == white and both[1, 3, 0] == 20
    mask = np.zeros((4, 5, 6), bool)
    assert ops.fullest(mask) == (2, 2, 3)
    mask[1, 4, 2] = mask[1, 4, 3] = mask[3, 0, 3] = True
    assert ops.fullest(mask) == (1, 4, 3)


class Drawing(Method):
    """A method that draws, or not."""

    offers = init = loss = predict = None

    def pictures(self):
        return lambda *_: {}


class Segmenting(Drawing):
    """One that segments."""

    offers = lambda self: ("segmentation",)


class Data:
    """Two volumes of spacing 2 along depth, of which the classes are known."""

    num_examples = 2
    names = {"segmentation": ("background", "a", "b")}
    volumes = rng.integers(0, 256, (2, 6, 8, 10, 1)).astype(np.uint8)
    labels = rng.choice([0, 1, 2, 255], (2, 6, 8, 10))

    def source(self, split):
        return self

    def geometry(self, index):
        return VolumeGeometry(affine=np.diag([1.0, 1, 2, 1]), shape=(10, 8, 6))

    def eval(self, split, limit=None):
        yield {"image": self.volumes, "segmentation": self.labels, "valid": np.ones(2, bool)}


def context(folder, pictures=None, **more):
    rest = dict(lines=(), results={}, metrics={}, data=Data(), split="test", predict=None)
    given = lambda count, seed: {name: images[:count] for name, images in pictures.items()}
    return FigureContext(
        method=Drawing(), step=1, folder=folder, **{**rest, "pictures": given, **more}
    )


def test_reconstructions_in_three_planes(tmp_path):
    pictures = {name: Data.volumes // n for n, name in enumerate(("original", "masked"), 1)}
    found = planes.rows(context(tmp_path, pictures), 2)
    for name, images in found.items():
        assert images.shape == (2, 12, 10 + 2 + 10 + 2 + 8, 1)
        for image, volume in zip(images, pictures[name]):
            np.testing.assert_array_equal(image[:8, :10], volume[3, ::-1])
            np.testing.assert_array_equal(image[:, 12:22], volume[::-1, 4].repeat(2, axis=0))
            np.testing.assert_array_equal(image[:, 24:], volume[::-1, :, 5].repeat(2, axis=0))
    figure = planes.make(count=1)
    (path,) = figure.draw(context(tmp_path, pictures))
    assert path.name in figure.files and np.ptp(matplotlib.image.imread(path)) > 0
    pixels, text = figure.log(context(tmp_path, pictures))
    rows = "Rows, from the top: original (axial, coronal, sagittal); masked"
    assert pixels.shape[2] == 3 and text == rows
    with pytest.raises(UserError, match=r"these images are \[8, 10\]: draw reconstructions"):
        figure.draw(context(tmp_path, {"original": Data.volumes[:, 0]}))


def test_segmentations_in_three_planes(tmp_path):
    data = Data()

    def predict(outputs, reduce):
        return lambda batch: {**batch, "map": np.where(data.labels == 1, 2, 1)}

    figure = segmentation.make(count=2)
    inputs = context(tmp_path, predict=predict)
    (path,) = figure.draw(inputs._replace(method=Segmenting()))
    assert np.ptp(matplotlib.image.imread(path)) > 0
    rows = segmentation.in_planes(inputs, {"true": list(data.volumes)}, list(data.labels))
    at = ops.fullest((data.labels[0] > 0) & (data.labels[0] < 255))
    np.testing.assert_array_equal(rows["true"][0, :8, :10], data.volumes[0, at[0], ::-1])


def test_films(tmp_path):
    clips = rng.integers(0, 256, (2, 5, 16, 24, 3)).astype(np.uint8)
    pictures = {"original": clips, "masked (what the encoder sees)": clips[..., :1]}
    sheet = film.contact_sheet(pictures, 3)
    labels = ["1: original", "1: masked (what the\nencoder sees)"]
    assert [*sheet][:2] == labels and len(sheet) == 4
    np.testing.assert_array_equal(sheet["2: original"], clips[1, [0, 2, 4]])
    figure = film.make(count=2, frames=3, rate=10)
    paths = figure.draw(context(tmp_path, pictures))
    assert [path.name for path in paths] == [*figure.files]
    with Image.open(paths[0]) as picture:
        assert picture.width > 3 * 0.9 * 150
    with Image.open(paths[1]) as animation:
        assert animation.n_frames == 5 and animation.info["duration"] == 100
        assert animation.info["loop"] == 0
        factor = round(128 / 24)
        assert animation.width == 2 * (24 * factor + film.GAP)
        height = 16 * factor
        frame = np.asarray(animation.convert("RGB"))[: -film.GAP, : 24 * factor][-height:]
    enlarged = clips[1, 0].repeat(factor, axis=0).repeat(factor, axis=1)
    # A GIF has 256 colors a frame.
    assert np.abs(frame.astype(int) - enlarged).mean() < 40
    single = film.contact_sheet({"original": clips[:1]}, 99)
    assert [*single] == ["original"] and len(single["original"]) == 5
    with pytest.raises(UserError, match=r"these images are \[16, 24\]: draw reconstructions"):
        figure.draw(context(tmp_path, {"original": clips[:, 0]}))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (planes.make, dict(count=0), "planes: count=0"),
        (film.make, dict(frames=0), "frames=0 must be at least 1"),
        (film.make, dict(rate=0), "rate=0 in"),
    ],
)
def test_mistakes_are_named(make, options, message):
    with pytest.raises(UserError) as error:
        make(**options)
    assert message in str(error.value)
