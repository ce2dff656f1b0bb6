"""Generated volumes, and the experiments on volumes and clips."""

import jax
import numpy as np
import pytest

from mae_jax.config import load_config
from mae_jax.data import make_data
from mae_jax.data.sources import ellipsoids
from mae_jax.settings import make_evaluators, make_method
from mae_jax.spec import build, call_section
from mae_jax.types import UserError
from tests.helpers.volumes import hounsfield, save_nifti


def test_ellipsoids_are_functions_of_seed_split_and_index():
    source = build("ellipsoids(size=16, num_examples=6)", "data.sources")
    rows = source.read(np.arange(6))
    image, labels = np.stack(rows["image"]), np.stack(rows["segmentation"])
    assert image.shape == (6, 16, 16, 16, 1) and image.dtype == np.uint8
    assert labels.shape == (6, 16, 16, 16) and {*np.unique(labels)} <= {0, 1, 2, 3}
    again = ellipsoids.make(size=16, num_examples=900).read([4])
    np.testing.assert_array_equal(again["image"][0], image[4])
    for other in (dict(split="test"), dict(seed=1)):
        found = ellipsoids.make(size=16, **other).read([4])["image"][0]
        assert not np.array_equal(found, image[4])
    assert source.names["segmentation"] == ("background", "smooth", "striped", "speckled")


def test_textures_differ_and_mean_brightness_does_not():
    rows = ellipsoids.make(size=32, num_examples=60).read(np.arange(60))
    image = np.stack(rows["image"])[..., 0].astype(np.float64)
    labels = np.stack(rows["segmentation"])
    means = [image[labels == c].mean() for c in range(4)]
    assert means[0] < 90 and np.ptp(means[1:]) < 25 and min(means[1:]) > 125
    step = np.abs(np.diff(image, axis=3))  # between neighbors of one class
    same = labels[..., 1:] == labels[..., :-1]
    rough = [step[same & (labels[..., 1:] == c)].mean() for c in (1, 2, 3)]
    assert rough[0] < 0.75 * min(rough[1:])
    counts = np.bincount(rows["label"], minlength=3)
    assert counts.min() > 8 and counts.sum() == 60
    share = (labels > 0).mean()
    assert 0.05 < share < 0.4
    most = [np.bincount(one[one > 0], minlength=4).argmax() - 1 for one in labels]
    assert np.mean(np.array(most) == rows["label"]) > 0.7  # the largest, or several of a class


def test_the_label_may_be_the_number_of_ellipsoids():
    """More of them cover more, and the volumes are the same."""
    source = ellipsoids.make(size=16, num_examples=200, label="objects")
    rows, others = source.read(np.arange(200)), ellipsoids.make(size=16).read([7])
    np.testing.assert_array_equal(rows["image"][7], others["image"][0])
    assert source.names["label"] == ("2", "3", "4", "5")
    labels, share = np.array(rows["label"]), (np.stack(rows["segmentation"]) > 0).mean((1, 2, 3))
    counts = np.bincount(labels, minlength=4)
    assert len(counts) == 4 and counts.min() > 30
    assert (np.diff([share[labels == label].mean() for label in range(4)]) > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(label="size"), "ellipsoids: label 'size' is unknown: choose texture, objects"),
        (dict(split="val"), "ellipsoids: split 'val' is unknown: choose train, test"),
        (dict(size=4), "ellipsoids: size=4 should be an int from 8 to 256"),
        (dict(num_examples=0), "num_examples=0 should be an int from 1"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=message):
        ellipsoids.make(**options)


@pytest.mark.parametrize("name", ["volumes", "volumes:FOLDER", "clips:FOLDER"])
def test_experiments_fit_their_data(tmp_path, name):
    """From files to the loss, which is traced and not computed."""
    if name.startswith("clips"):
        np.save(tmp_path / "a.npy", np.zeros((70, 64, 72, 3), np.uint8))
    else:
        save_nifti(tmp_path / "a.nii", hounsfield(64, 70, 40), "LPS")
    file, _, folder = name.partition(":")
    config = load_config(f"configs/{file}.py" + f":{tmp_path}" * bool(folder))
    data = call_section(make_data, config.data, "data")
    batch = next(data.train(0))
    space = {"volumes": (32,) * 3, "clips:FOLDER": (16, 64, 64)}.get(name, (64,) * 3)
    assert batch["image"].shape[1:4] == space
    method = call_section(make_method, config.method, "method", total_steps=10)
    shapes = jax.eval_shape(lambda: batch)
    params, extra = jax.eval_shape(method.init, jax.random.key(0), shapes)
    loss = jax.eval_shape(method.loss, params, extra, shapes, jax.random.key(0), 0).loss
    assert loss.shape == () and data.example("eval")["image"].shape[1:4] == space
    make_evaluators(config.evals.run)
