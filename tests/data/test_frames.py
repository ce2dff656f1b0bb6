"""Clips of folders of frames, animated images, arrays and videos."""

import sys

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import clips, make_data
from mae_jax.data.images import BadImage
from mae_jax.data.sources import frames
from mae_jax.spec import build
from mae_jax.types import UserError


def movie(count, height=6, width=8, channels=3, seed=0):
    """[T, H, W, C] uint8, each frame of few colors, which a GIF keeps."""
    rng = np.random.default_rng(seed)
    shape = (count, height // 2, width // 2, channels)
    return rng.integers(0, 4, shape).astype(np.uint8).repeat(2, 1).repeat(2, 2) * 85


def save(path, values):
    """Writes a folder of frames, an animated image or an array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [Image.fromarray(frame) for frame in values]
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix:
        lossless = dict(lossless=True) if path.suffix == ".webp" else {}
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40, **lossless)
    else:
        path.mkdir()
        for number, picture in enumerate(pictures):
            picture.save(path / f"frame{number}.png")  # frame10 follows frame9


def read(source, index):
    """A whole clip."""
    return source.read(np.array([index]))["image"][0].pixels()


NAMES = ("a/folder", "a/one.gif", "b/two.webp", "b/three.npy", "c/four.png")


def test_clips_of_every_kind(tmp_path):
    """Two clips of 4 frames at a stride of 2 in 15 frames; the last three frames are left."""
    movies = {name: movie(15, seed=n) for n, name in enumerate(NAMES)}
    for name, values in movies.items():
        save(tmp_path / name, values)
    source = build(f"frames({str(tmp_path)!r}, frames=4, stride=2)", "data.sources")
    assert source.class_names == ("a", "b", "c") and source.class_counts().tolist() == [4, 4, 2]
    names = [source.name(n) for n in range(source.num_examples)]
    assert names == [f"{name}[{n}]" for name in sorted(NAMES, key=order) for n in (0, 1)]
    groups = source.groups()
    assert groups.tolist() == [n // 2 for n in range(10)] and source.group(3) == names[3][:-3]
    for index, name in enumerate(names):
        video, first = movies[name[:-3]], 8 * int(name[-2])
        expected = video[first : first + 7 : 2]
        np.testing.assert_array_equal(read(source, index), expected, name)
        clip = source.read([index])["image"][0]
        assert clip.shape == (4, 6, 8, 3) and clip.dtype == np.uint8
        for _ in range(2):  # decoded, and as decoded before
            np.testing.assert_array_equal(clip[1:3, 2:5, ::3], expected[1:3, 2:5, ::3])
    gray = frames.make(str(tmp_path), frames=0, channels=1)
    assert gray.groups() is None and read(gray, 0).shape == (15, 6, 8, 1)


def order(name):
    """Files of a folder before its sub-folders."""
    return name[0], "." not in name, name


def test_short_videos_are_refused_or_repeat_their_last_frame(tmp_path):
    long, short = movie(13), movie(5, seed=1)
    save(tmp_path / "long.npy", long)
    save(tmp_path / "short.gif", short)
    options = dict(frames=4, stride=4)
    source = frames.make(str(tmp_path), **options)
    why = "it has 5 frames, and 4 at a stride of 4 need 13: lower frames or stride, or give short="
    assert source.damaged == [f"short.gif: {why}'repeat'"]
    with pytest.raises(BadImage, match="it has 5 frames"):
        source.read([1])
    found = read(frames.make(str(tmp_path), short="repeat", **options), 1)
    np.testing.assert_array_equal(found, short[[0, 4, 4, 4]])
    data = make_data(
        train=f"frames({str(tmp_path)!r}, frames=4, stride=4)",
        batch_size=2,
        train_transform="random_crop((2, 4, 4))",
        eval_transform="",
        on_error="skip",
    )
    assert next(data.train(0))["image"].shape == (2, 2, 4, 4, 3) and data.skipped == 1
    (tmp_path / "long.npy").unlink()
    with pytest.raises(UserError, match="cannot read .*short.gif: it has 5 frames"):
        frames.make(str(tmp_path), **options)


def test_what_is_refused(tmp_path):
    save(tmp_path / "a", movie(3))
    Image.new("RGB", (9, 9)).save(tmp_path / "a" / "frame9.png")
    np.save(tmp_path / "b.npy", np.zeros((3, 4, 5)))
    (tmp_path / "c.gif").write_bytes(b"GIF89a")
    source = frames.make(str(tmp_path), frames=0)
    assert [line.partition(":")[0] for line in source.damaged] == ["b.npy", "c.gif"]
    assert "it holds float64 of shape (3, 4, 5): a clip is uint8" in source.damaged[0]
    index = [source.name(n) for n in range(3)].index("a")
    with pytest.raises(BadImage, match="its frames differ in size: .6, 8, 3., .9, 9, 3."):
        read(source, index)
    for options, message in (
        (dict(frames=-1), "frames=-1 should be an integer of 0 or more"),
        (dict(stride=0), "stride=0 should be an integer of 1 or more"),
        (dict(short="skip"), "frames: short 'skip' is unknown: choose refuse, repeat"),
        (dict(channels=4), "channels 4 is not supported"),
        (dict(frames=0, stride=9), "frames: stride=9 has no effect with frames=0, .* random_clip"),
        (dict(frames=0, short="repeat"), "frames: short='repeat' has no effect with frames=0"),
    ):
        with pytest.raises(UserError, match=message):
            frames.make(str(tmp_path), **options)


def test_videos_name_the_package_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="videos need PyAV, .*: pip install av, or save their fram"):
        frames.make(str(tmp_path))


def test_videos(tmp_path):
    """Lossless ones, frame by frame; a header that promises too much is found out."""
    av = pytest.importorskip("av")
    values = movie(9, 32, 48)
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "bgr0"
        for frame in values:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    source = frames.make(str(tmp_path), frames=3, stride=2)
    np.testing.assert_array_equal(read(source, 0), values[[0, 2, 4]])
    assert source.num_examples == 1 and clips.count_video(tmp_path / "a.mkv") == 9
    with pytest.raises(BadImage, match="it ends after 9 frames, before frame 12"):
        clips.read_video(tmp_path / "a.mkv", 3, [12])


def test_videos_that_are_cut_off_are_skipped(tmp_path):
    """At the first frame: a file that ends behind its header. None is found by decoding it."""
    av = pytest.importorskip("av")
    values, path = movie(9, 32, 48), tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "bgr0"
        for frame in values:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    whole = path.read_bytes()
    (tmp_path / "b.mkv").write_bytes(whole[: whole.index(b"\x1f\x43\xb6\x75") + 16])  # Cluster
    assert clips.count_video(tmp_path / "b.mkv") == 0
    with pytest.raises(BadImage, match="it ends after 0 frames, before frame 0"):
        clips.read_video(tmp_path / "b.mkv", 3, [0])
    data = make_data(
        train=f"frames({str(tmp_path)!r}, frames=0)",
        batch_size=2,
        train_transform="random_clip(4, stride=2)",
        eval_transform="center_clip(4, stride=2)",
        on_error="skip",
    )
    assert data.source("train").damaged == [
        "b.mkv: it has no frame, or is cut off before the first one"
    ]
    assert next(data.train(0))["image"].shape == (2, 4, 32, 48, 3) and data.skipped == 1
    for length, repeat in ((0, False), (4, True), (4, False)):
        with pytest.raises(BadImage, match="it has no frame"):
            clips.clip_numbers(0, length, 2, repeat)


def test_videos_beside_sub_folders_have_no_classes_and_a_note_says_so(tmp_path):
    (tmp_path / "walk").mkdir()
    for path in (tmp_path / "a.npy", tmp_path / "walk" / "b.npy"):
        np.save(path, np.zeros((4, 8, 8, 3), np.uint8))
    source = frames.make(str(tmp_path), frames=4, stride=1)
    assert source.names == {} and any(
        note.startswith("no classes: 1 file") for note in source.notes
    )
    (tmp_path / "a.npy").unlink()
    source = frames.make(str(tmp_path), frames=4, stride=1)
    assert source.names == {"label": ("walk",)} and not source.notes
