"""Crops, flips, padding and clips of images of three dimensions, with all that moves along."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import make_data
from mae_jax.data import transforms as T
from mae_jax.data.clips import clip_numbers
from mae_jax.data.fields import IGNORE
from mae_jax.data.images import BadImage
from mae_jax.data.lazy import Lazy
from mae_jax.data.random import hash_words
from mae_jax.data.sources import Arrays
from mae_jax.types import UserError

RNG = np.random.default_rng(0)
VOLUME = RNG.integers(0, 256, (7, 6, 8, 2)).astype(np.uint8)
LABELS = RNG.integers(0, 5, (7, 6, 8)).astype(np.int32)


def example():
    """A volume with labels, and a box from (1, 2, 3) to (5, 4, 7)."""
    low, high = np.array([1, 2, 3]) / LABELS.shape, np.array([5, 4, 7]) / LABELS.shape
    box = np.concatenate([low, high]).astype(np.float32)
    return {"image": VOLUME, "segmentation": LABELS, "box": np.stack([box, np.zeros(6)])}


def run(text, count=40, of=None):
    """`count` draws of transforms, of the seeds 0, 1, ..."""
    transforms = T.make_transforms(text)
    params = T.draw(transforms, hash_words(7, np.arange(count)))
    found = []
    for row in range(count):
        one = dict(of or example())
        for transform, numbers in zip(transforms, params):
            one = transform.apply(one, numbers[row])
        found.append(one)
    return found


def box_of(labels):
    """The extent of the voxels of class 9, as fractions."""
    inside = np.argwhere(labels == 9)
    return np.concatenate([inside.min(0) / labels.shape, (inside.max(0) + 1) / labels.shape])


def marked():
    """An example in which the box is filled by class 9, and channel 0 repeats the labels."""
    one = example()
    labels = LABELS.copy()
    labels[1:5, 2:4, 3:7] = 9
    image = np.stack([labels, VOLUME[..., 1]], -1).astype(np.uint8)
    return {**one, "image": image, "segmentation": labels}


@pytest.mark.parametrize("text", ["flip", "flip(axes=(0,))", "flip(axes=(0, 1, 2))"])
def test_flips_move_everything_along(text):
    seen = set()
    for one in run(text, of=marked()):
        axes = next(
            axes
            for axes in [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
            if np.array_equal(one["image"], np.flip(marked()["image"], axes))
        )
        seen.add(axes)
        np.testing.assert_array_equal(one["segmentation"], one["image"][..., 0])
        np.testing.assert_allclose(one["box"][0], box_of(one["segmentation"]), atol=1e-6)
        assert not one["box"][1].any()
    assert len(seen) == {"flip": 2, "flip(axes=(0,))": 2}.get(text, 8)


def test_flipping_the_last_axis_by_its_number_is_the_same():
    for rank, axis in ((3, 2), (2, 1)):
        image = VOLUME if rank == 3 else VOLUME[0]
        plain, named = (
            run(text, of={"image": image}) for text in ("flip", f"flip(axes=({axis},))")
        )
        for one, other in zip(plain, named):
            np.testing.assert_array_equal(one["image"], other["image"])


def test_crops_of_boxes_cover_all_places():
    corners = set()
    for one in run("random_crop((5, 3, 8))", 200, marked()):
        found = one["image"]
        np.testing.assert_array_equal(one["segmentation"], found[..., 0])
        places = [(d, h) for d in range(3) for h in range(4)]
        crops = {p: marked()["image"][p[0] : p[0] + 5, p[1] : p[1] + 3] for p in places}
        corners |= {place for place, crop in crops.items() if np.array_equal(crop, found)}
    assert corners == {(d, h) for d in range(3) for h in range(4)}
    (one,) = run("center_crop((3, 2, 4))", 1)
    np.testing.assert_array_equal(one["image"], VOLUME[2:5, 2:4, 2:6])
    np.testing.assert_array_equal(one["segmentation"], LABELS[2:5, 2:4, 2:6])


def test_padding_of_volumes():
    (one,) = run("pad((9, 4, 8), fill=3)", 1)
    assert one["image"].shape == (9, 6, 8, 2) and one["segmentation"].shape == (9, 6, 8)
    np.testing.assert_array_equal(one["image"][:7], VOLUME)
    np.testing.assert_array_equal(one["segmentation"][:7], LABELS)
    assert (one["image"][7:] == 3).all() and (one["segmentation"][7:] == IGNORE).all()
    np.testing.assert_allclose(one["box"][0, ::3], np.array([1, 5]) / 9, atol=1e-6)
    half = {"image": VOLUME[..., :1].astype(np.float16) + 0.5}
    (one,) = run("pad((9, 6, 8), fill=0)", 1, half)
    assert one["image"].dtype == np.float16 and one["image"][0, 0, 0, 0] % 1 == 0.5


def test_clips_of_random_strides():
    video = {"image": np.arange(40, dtype=np.uint8)[:, None, None, None].repeat(3, -1)}
    video["segmentation"] = np.arange(40)[:, None, None]
    starts = set()
    for one in run("random_clip(4, stride=(2, 5))", 400, video):
        numbers = one["image"][:, 0, 0, 0].astype(int)
        assert one["image"].shape == (4, 1, 1, 3) and len({*np.diff(numbers)}) == 1
        np.testing.assert_array_equal(one["segmentation"][:, 0, 0], numbers)
        starts.add((numbers[1] - numbers[0], numbers[0]))
    assert {stride for stride, _ in starts} == {2, 3, 4, 5}
    firsts = [start for stride, start in starts if stride == 5]
    assert min(firsts) == 0 and max(firsts) == 40 - 16 and len(firsts) > 15
    (one,) = run("center_clip(4, stride=5)", 1, video)
    assert one["image"][:, 0, 0, 0].tolist() == [12, 17, 22, 27]
    assert len({o["image"].tobytes() for o in run("random_clip(4, stride=3)", 60, video)}) > 20
    with pytest.raises(BadImage, match="it has 40 frames, and 9 at a stride of 5 need 41"):
        run("center_clip(9, stride=5)", 1, video)


@pytest.mark.parametrize("name", ["random_clip", "center_clip"])
def test_short_videos_repeat_their_last_frame_if_asked_for(name):
    """The frames that the source `frames` reads of such a video; boxes at the end stay there."""
    video = {"image": np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(3, -1)}
    video["segmentation"] = np.arange(10)[:, None, None]
    video["box"] = np.array([[0.2, 0, 0, 1, 1, 1], [0, 0, 0, 0.6, 1, 1], [0] * 6], np.float32)
    for frames, stride in ((4, 4), (9, 2), (5, 20)):
        (one,) = run(f"{name}({frames}, stride={stride}, short='repeat')", 1, video)
        (numbers,) = clip_numbers(10, frames, stride, repeat=True)
        assert one["image"].shape == (frames, 1, 1, 3)
        assert one["image"][:, 0, 0, 0].tolist() == one["segmentation"][:, 0, 0].tolist() == numbers
        ends = one["box"][:2, [0, 3]] * frames * stride
        np.testing.assert_allclose(ends, [[2, frames * stride], [0, 6]], rtol=1e-6)
        assert not one["box"][2].any()
        with pytest.raises(BadImage, match=rf"it has 10 frames.* or give {name} short='repeat'"):
            run(f"{name}({frames}, stride={stride})", 1, video)
    long = [
        [o["image"].tobytes() for o in run(f"{name}(4, stride=3{more})", 9, video)]
        for more in ("", ", short='repeat'")
    ]
    assert long[0] == long[1], "videos that are long enough stay as they were"
    with pytest.raises(UserError, match=f"{name}: short 'skip' is unknown: choose refuse, repeat"):
        run(f"{name}(4, short=skip)", 1, video)


def test_resized_crops_of_clips_are_those_of_each_frame():
    """All frames as by the same transform of images, and by Pillow."""
    clip = RNG.integers(0, 256, (3, 40, 56, 3)).astype(np.uint8)
    labels = RNG.integers(0, 5, (3, 40, 56)).astype(np.int32)
    low, high = np.array([1 / 3, 0.2, 0.3]), np.array([1, 0.9, 0.6])
    box = np.stack([np.concatenate([low, high]), np.zeros(6)]).astype(np.float32)
    text = "random_resized_crop((16, 24), scale=(0.5, 1.0), kernel=bilinear)"
    (crop,), count, sizes = T.make_transforms(text), 12, set()
    (params,) = T.draw([crop], hash_words(7, np.arange(count)))
    found = run(text, count, {"image": clip, "segmentation": labels, "box": box})
    for one, numbers in zip(found, params, strict=True):
        top, left, height, width = crop.box(40, 56, numbers)
        sizes.add((height, width))
        assert 0.5 - 0.05 < height * width / (40 * 56) and 0.7 < width / height < 1.4
        for t in range(3):
            frame = {"image": clip[t], "segmentation": labels[t], "box": box[:, [1, 2, 4, 5]]}
            frame = crop.apply(frame, numbers)
            np.testing.assert_array_equal(one["image"][t], frame["image"])
            np.testing.assert_array_equal(one["segmentation"][t], frame["segmentation"])
            np.testing.assert_allclose(one["box"][:, [1, 2, 4, 5]], frame["box"], atol=1e-6)
            part = clip[t, top : top + height, left : left + width]
            exact = Image.fromarray(part).resize((24, 16), Image.Resampling.BILINEAR)
            assert np.abs(one["image"][t].astype(int) - np.asarray(exact)).max() <= 1
        np.testing.assert_allclose(one["box"][:, [0, 3]], box[:, [0, 3]], atol=1e-6)
    assert len(sizes) > 6
    with pytest.raises(UserError, match="images of type float16, and those of three dimensions"):
        run(text, 1, {"image": clip.astype(np.float16)})


def test_multi_scale_crops_are_videomaes():
    """Ten pairs of sides and thirteen places, equally likely; of clips, the same of all frames."""
    (crop,) = T.make_transforms("multi_scale_crop(224)")
    (params,) = T.draw([crop], hash_words(3, np.arange(6500)))
    boxes = Counter(crop.box(240, 320, numbers) for numbers in params)
    sides = 240, 210, 180, 158  # 0.66 x 240 = 158.4
    near = [(a, b) for i, a in enumerate(sides) for b in sides[max(i - 1, 0) : i + 2]]
    quarters = [(0, 0), (0, 2), (0, 4), (2, 0), (2, 2), (2, 4), (4, 0), (4, 2), (4, 4)]
    quarters += [(1, 1), (1, 3), (3, 1), (3, 3)]
    expected = Counter(
        (y * ((240 - h) // 4), x * ((320 - w) // 4), h, w) for h, w in near for y, x in quarters
    )
    assert len(near) == 10 and set(boxes) == set(expected)
    for box, count in expected.items():  # several places are one, where no room is left
        assert abs(boxes[box] - 50 * count) < 6 * (50 * count) ** 0.5
    # Sides that are nearly those of the result are not resized.
    assert {crop.box(226, 300, numbers)[2] for numbers in params[:300]} == {224, 197, 169, 149}
    assert {crop.box(222, 300, numbers)[2] for numbers in params[:300]} == {222, 194, 166, 146}

    clip = RNG.integers(0, 256, (2, 40, 56, 3)).astype(np.uint8)
    (one,) = run("multi_scale_crop((16, 24))", 1, {"image": clip})
    (crop,) = T.make_transforms("multi_scale_crop((16, 24))")
    ((numbers,),) = T.draw([crop], hash_words(7, np.arange(1)))
    top, left, height, width = crop.box(40, 56, numbers)
    for t in range(2):
        part = Image.fromarray(clip[t, top : top + height, left : left + width])
        exact = np.asarray(part.resize((24, 16), Image.Resampling.BILINEAR), int)
        assert np.abs(one["image"][t].astype(int) - exact).max() <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("multi_scale_crop(8, scales=(0.5, 1))", r"scales \(0.5, 1\) are not descending shares"),
        ("multi_scale_crop(8, scales=())", "are not descending shares"),
        ("multi_scale_crop(8, kernel=box)", "multi_scale_crop: kernel 'box' is unknown"),
        ("flip(axes=(3,))", "flip: axes=.3,. of images of 3 axes besides the channels: choose fro"),
        ("flip(axes=())", "flip: axes=.. should be different axes from 0 on"),
        ("flip(axes=(1, 1))", "should be different axes"),
        ("pad((9, 9))", "pad: images of shape .* give 3 sizes"),
        ("pad((9, 9, 9), fill=256)", "should be three integers"),
        ("random_crop((9, 6, 8))", r"random_crop\(9, 6, 8\) of an image of 7 x 6 x 8: put pad"),
        ("random_clip(0)", "frames=0 and stride=.4, 4. should be positive integers"),
        ("random_clip(2, stride=(3, 1))", r"stride=\(3, 1\) should be \(lowest, highest\)"),
        ("center_clip(2, stride=0)", "should be positive integers"),
        ("random_resized_crop(4, kernel=box)", "random_resized_crop: kernel 'box' is unknown"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(UserError, match=message):
        run(text, 1)


def test_batches_are_functions_of_the_seed_and_the_step(monkeypatch):
    """In two processes, and from any step on."""
    videos = RNG.integers(0, 256, (6, 12, 6, 6, 1)).astype(np.uint8)
    monkeypatch.setattr("mae_jax.data.open_sources", lambda _: {"train": Arrays({"image": videos})})
    text = "random_clip(4, stride=(1, 3))|random_resized_crop(4)|flip(axes=(0, 2))"
    options = dict(train="", batch_size=4, train_transform=text, eval_transform="", fields=())
    stream = make_data(**options).train(0)
    whole = [next(stream)["image"] for _ in range(3)]
    parts = [
        next(make_data(**options, process_index=n, process_count=2).train(2))["image"]
        for n in range(2)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole[2])
    assert not np.array_equal(whole[0], whole[1])


def test_spacing_jitter_scales_each_axis():
    """Pixels linearly and labels by the nearest voxel, of all fields alike, and in parts."""
    smooth = np.add.outer(np.add.outer(30.0 * np.arange(7), 4.0 * np.arange(6)), np.arange(8))
    given = example() | {"image": np.stack([smooth, 255 - smooth], -1).astype(np.uint8)}
    sizes, finer = [], 0
    for one in run("spacing_jitter((0.5, 2))", of=given):
        image, labels = one["image"].pixels(), one["segmentation"].pixels()
        sizes.append(image.shape[:3])
        assert image.dtype == np.uint8 and labels.shape == image.shape[:3]
        np.testing.assert_array_equal(one["box"], given["box"])
        at = [
            ((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(labels.shape, (7, 6, 8))
        ]
        np.testing.assert_array_equal(labels, LABELS[np.ix_(*at)])
        places = [(np.arange(n) + 0.5) * old / n - 0.5 for n, old in zip(labels.shape, (7, 6, 8))]
        if min(np.divide(labels.shape, (7, 6, 8))) >= 1:  # a linear image stays as it is
            d, h, w = (np.clip(p, 0, old - 1) for p, old in zip(places, (7, 6, 8)))
            exact = np.add.outer(np.add.outer(30 * d, 4 * h), w)
            np.testing.assert_allclose(image[..., 0], exact, atol=0.501)
            finer += 1
        part = np.s_[1:3, :2, 2:]
        np.testing.assert_array_equal(one["image"][part], image[part])
    assert finer > 2
    ratios = np.log(np.array(sizes) / (7, 6, 8)) / np.log(2)
    assert (np.abs(ratios.mean(0)) < 0.25).all() and (ratios.std(0) > 0.4).all()
    assert np.abs(np.corrcoef(ratios.T)[np.triu_indices(3, 1)]).max() < 0.4


def test_spacing_jitter_reads_its_crop_only():
    reads = []

    class Logged(Lazy):
        shape, dtype = VOLUME.shape, VOLUME.dtype

        def __getitem__(self, part):
            reads.append(VOLUME[part].shape)
            return VOLUME[part]

    chain = "spacing_jitter(((1, 1), (0.5, 0.5), (0.5, 0.5)))|random_crop((2, 2, 2))|flip"
    found = run(chain, count=8, of=example() | {"image": Logged()})
    assert len(reads) == 8 and {shape[0] for shape in reads} == {2}
    assert max(shape[1] for shape in reads) <= 6 and {shape[3] for shape in reads} == {2}
    whole = [one["image"] for one in run(chain, count=8)]
    for one, exact in zip(found, whole):
        np.testing.assert_array_equal(np.asarray(one["image"]), exact)
        assert one["segmentation"].shape == (2, 2, 2)
    unchanged = run("spacing_jitter((1, 1))", count=1)[0]
    assert unchanged["image"] is VOLUME
    for text, message in (
        ("spacing_jitter((2, 1))", "spacing_jitter: factor .2, 1. is not an ascending range"),
        ("spacing_jitter((0, 1, 1))", "spacing_jitter: factor .0, 1, 1. is not"),
    ):
        with pytest.raises(UserError, match=message):
            T.make_transforms(text)
    with pytest.raises(UserError, match="spacing_jitter: images of shape .* have 2 axes"):
        run("spacing_jitter", count=1, of={"image": VOLUME[0]})
