"""Segmentation of volumes: all heads for any number of dimensions, losses, volumes of any size, and
runs that are killed.
"""

import shutil

import jax
import numpy as np
import pytest

from mae_jax.ops.interpolate import bilinear_matrix, resize
from mae_jax.restore import load_run
from mae_jax.tasks import segment
from mae_jax.types import UserError
from tests.helpers.commands import run

KEY = jax.random.key(0)
VIT = "vit(width=24, depth=1, heads=2, patch=(2, 4, 4))"
ARGS = dict(encoder=VIT, classes=3, crop=(4, 8, 8), drop_path=0.0)
rng = np.random.default_rng(0)


def volumes(*space):
    return rng.integers(0, 256, (2, *space, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def made():
    """The task with transposed convolutions, its parameters, and its compiled functions."""
    task = segment.make(**ARGS, head="transposed", loss="dice_cross_entropy")
    batch = {"image": volumes(4, 8, 8), "segmentation": rng.choice([0, 1, 2, 255], (2, 4, 8, 8))}
    params, extra = jax.jit(task.init)(KEY, batch)
    assert extra == {}
    predict = jax.jit(
        lambda params, image: task.predict(
            params, extra, {"image": image}, outputs=("segmentation",)
        )["segmentation"]
    )
    return task, params, batch, predict


def test_the_loss_is_of_what_is_predicted(made):
    task, params, batch, predict = made
    output, gradient = jax.jit(
        lambda params: (
            task.loss(params, {}, batch, KEY, 0),
            jax.grad(lambda p: task.loss(p, {}, batch, KEY, 0).loss)(params),
        )
    )(params)
    logits = np.asarray(predict(params, batch["image"]), np.float64)
    assert logits.shape == (2, 4, 8, 8, 3)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    labels, known = batch["segmentation"], batch["segmentation"] != 255
    entropy = -np.log(shares[known][np.arange(known.sum()), labels[known]]).mean()
    dice = [
        (2 * shares[labels == k][:, k].sum() + 1e-5)
        / (shares[known][:, k].sum() + (labels == k).sum() + 1e-5)
        for k in (1, 2)
    ]
    np.testing.assert_allclose(output.loss, entropy + 1 - np.mean(dice), rtol=1e-5)
    hits = (logits.argmax(-1) == labels)[known].mean()
    np.testing.assert_allclose(output.metrics["accuracy"], hits, rtol=1e-6)
    assert output.extra == {}
    assert all(np.isfinite(x).all() and np.any(x) for x in jax.tree.leaves(gradient["head"]))


def test_volumes_of_any_size_are_padded(made):
    """With the mean, after the last voxels; positions are resampled."""
    task, params, _, predict = made
    image = volumes(5, 9, 8)
    found = predict(params, image)
    assert found.shape == (2, 5, 9, 8, 3)
    mean = task.normalize(image)
    whole = np.pad(mean, ((0, 0), (0, 1), (0, 3), (0, 0), (0, 0)))
    np.testing.assert_allclose(
        jax.jit(lambda x: task.logits(params, {}, x))(whole)[:, :5, :9], found, atol=1e-5
    )


def test_windows_of_volumes_are_averaged_by_weights(made):
    task, params, _, predict = made
    image, corners = volumes(5, 9, 8), np.array([(0, 0, 0), (1, 1, 0)])
    weights = rng.uniform(0.01, 1, (1, 4, 8, 8)).repeat(2, axis=0).astype(np.float32)
    batch = {"image": image, "windows": np.stack([corners, corners]).astype(np.int32)}
    batch["weights"] = weights
    found = jax.jit(
        lambda batch: task.predict(params, {}, batch, outputs=("segmentation",))["segmentation"]
    )(batch)
    total, count = np.zeros(found.shape), np.zeros(found.shape)
    for z, y, x in corners:
        part = np.s_[:, z : z + 4, y : y + 8, x : x + 8]
        total[part] += weights[..., None] * predict(params, image[part])
        count[part] += weights[..., None]
    assert (count == 0).any()
    np.testing.assert_allclose(found, total / np.where(count > 0, count, 1), atol=1e-5)


def test_the_linear_head_is_resized_along_three_axes():
    task = segment.make(**ARGS, head="linear")
    batch = {"image": volumes(4, 8, 8), "segmentation": np.zeros((2, 4, 8, 8), np.int32)}
    params, extra = jax.jit(task.init)(KEY, batch)

    @jax.jit
    def both(image):
        found = task.predict(params, extra, {"image": image}, outputs=("segmentation",))
        (maps,) = task.model.apply({"params": params, **extra}, task.normalize(image))
        return found["segmentation"], maps, resize(maps, (5, 3, 7))

    found, maps, other = both(batch["image"])
    for size, resized in (((4, 8, 8), found), ((5, 3, 7), other)):
        matrices = (bilinear_matrix(n, m).astype(float) for n, m in zip(size, (2, 2, 2)))
        expected = np.einsum("zd,yh,xw,bdhwc->bzyxc", *matrices, np.asarray(maps, float))
        np.testing.assert_allclose(resized, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(crop=(4, 8)), "crop=(4, 8) is not a positive multiple of (2, 4, 4)"),
        (dict(crop=(4, 8, 6)), "crop=(4, 8, 6) is not a positive multiple of (2, 4, 4)"),
        (dict(loss="dice"), "loss 'dice' is unknown"),
    ],
)
def test_wrong_options_are_explained(options, message):
    with pytest.raises(UserError) as error:
        segment.make(**{**ARGS, "head": "transposed", **options})
    assert message in str(error.value)


def test_what_does_not_fit_volumes_is_explained(made):
    task = made[0]
    with pytest.raises(UserError, match=r"crops of 4 x 8 x 8 pixels, and these are 4 x 8 x 12: .*"):
        task.crops(volumes(4, 8, 12))
    with pytest.raises(UserError, match=r"crop=\(4, 8, 8\) has 3 sides, and images have 2 dim"):
        task.crop_sides(2)
    assert task.rank is None and segment.make(head="linear").rank is None
    assert segment.make().rank == segment.make(head="linear", photometric=True).rank == 2


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("task", ["mae", "segment", "classify"])
def test_a_killed_run_goes_on_bit_for_bit(task, root, tmp_path, monkeypatch):
    """Pre-training, segmentation and classification of volumes."""
    monkeypatch.chdir(root)
    workdir = tmp_path / task
    command = ("train", "--config", f"tests/helpers/tiny_volumes.py:{task}", "--workdir", workdir)
    assert run(*command) == 0
    _, state = load_run(workdir)
    whole = jax.tree.map(np.array, state)
    shutil.rmtree(workdir / "checkpoints" / "4")  # what a kill after step 2 leaves behind
    (workdir / "results.json").unlink()
    assert run(*command) == 0
    _, state = load_run(workdir)
    assert int(state.step) == 4
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.array, state), whole)
    if task == "segment":
        predicted_alike(workdir, tmp_path)
    if task == "mae":
        assert run("reconstruct", "--run", workdir, "--count", 1) == 0
        drawn = workdir / "figures" / "reconstructions.png"
        assert drawn.is_file() and drawn.read_bytes() != b""


def predicted_alike(workdir, folder):
    """One volume, larger than training crops, in files of two orientations."""
    from tests.helpers.volumes import nibabel, save_nifti

    values = rng.integers(0, 256, (20, 9, 17)).astype(np.uint8)
    stored = {
        name: save_nifti(folder / f"scans/{name}.nii", values, name) for name in ("RAS", "PIR")
    }
    images = f"volume({str(folder / 'scans')!r})"
    command = ("--run", workdir, "--images", images, "--out")
    assert run("predict", *command, folder / "out") == 0
    found = {name: nibabel.load(folder / f"out/labels/{name}.nii.gz") for name in stored}
    for name, labels in found.items():
        assert labels.shape == stored[name].shape
        np.testing.assert_array_equal(
            labels.affine, nibabel.load(folder / f"scans/{name}.nii").affine
        )
    same = [np.asarray(nibabel.as_closest_canonical(x).dataobj) for x in found.values()]
    np.testing.assert_array_equal(*same)
    assert len(np.unique(same[0])) > 1
    assert run("features", *command, folder / "features.npz") == 0
    with np.load(folder / "features.npz") as content:
        assert content["features"].shape == (2, 24) and content["grid"].tolist() == [4, 2, 2]
