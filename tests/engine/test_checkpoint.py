"""Checkpoints: what goes in comes out, on any mesh; what is damaged is set aside, not used."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mae_jax.engine import checkpoint, multihost
from mae_jax.engine.checkpoint import Checkpoints, digest
from mae_jax.engine.mesh import make_mesh
from mae_jax.types import UserError


@pytest.fixture(scope="module")
def state():
    mesh = make_mesh(fsdp=2)
    place = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))
    values = np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32)
    return {
        "kernel": place(values, P("fsdp")),
        "half": place(values[:2].astype(jnp.bfloat16), P()),
        "step": place(np.int32(7), P()),
        "flag": place(np.array(True), P()),
    }


def largest_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def save(folder, state, steps):
    with Checkpoints(folder, every=1, keep=3) as checkpoints:
        for step in steps:
            checkpoints.save(state, step)


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_round_trip_onto_another_mesh(tmp_path, state):
    save(tmp_path, state, [5])
    mesh = make_mesh(data=2)
    abstract_state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, P())), state
    )
    with Checkpoints(tmp_path, every=1) as checkpoints:
        restored = checkpoints.restore(abstract_state)
    assert_same(restored, state)
    assert restored["kernel"].sharding.spec == P()


def test_no_checkpoint_is_none_and_the_oldest_go(tmp_path, state):
    with Checkpoints(tmp_path, every=10, keep=2) as checkpoints:
        assert checkpoints.restore(state) is None
        assert [checkpoints.due(step) for step in (9, 10, 11)] == [False, True, False]
        for step in (1, 2, 3):
            checkpoints.save(state, step)
        checkpoints.save(state, 3)  # is there already: nothing to do
    with Checkpoints(tmp_path, every=10, keep=2) as checkpoints:
        assert checkpoints.steps() == [2, 3]


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(tmp_path, state, caplog, damage):
    save(tmp_path, state, [1, 2])
    damage(largest_file(tmp_path / "2" / "state"))
    with caplog.at_level(logging.WARNING), Checkpoints(tmp_path, every=1) as checkpoints:
        assert_same(checkpoints.restore(state), state)
        assert checkpoints.steps() == [1]
        checkpoints.save(state, 2)
    assert "checkpoint 2 is unreadable" in caplog.text and "trying the one before" in caplog.text
    assert (tmp_path / "broken-2-0").is_dir() and (tmp_path / "2").is_dir()


def test_what_one_process_cannot_read_none_uses(tmp_path, state, monkeypatch, caplog):
    save(tmp_path, state, [1, 2])
    others = iter([True, False, True, True])
    monkeypatch.setattr(multihost, "all_true", lambda here: here and next(others))
    with caplog.at_level(logging.WARNING), Checkpoints(tmp_path, every=1) as checkpoints:
        assert_same(checkpoints.restore(state), state)
        assert checkpoints.steps() == [1]
    assert "checkpoint 2 is unreadable (in another process)" in caplog.text


def test_nothing_readable_is_an_error_however_often(tmp_path, state):
    save(tmp_path, state, [1])
    truncate(largest_file(tmp_path / "1" / "state"))
    for _ in range(2):
        with Checkpoints(tmp_path, every=1) as checkpoints:
            with pytest.raises(UserError, match="no readable checkpoint"):
                checkpoints.restore(state)
    (tmp_path / "1").rename(tmp_path / "broken-1-0")
    with Checkpoints(tmp_path, every=1) as checkpoints:
        with pytest.raises(UserError, match="no readable checkpoint"):
            checkpoints.restore(state)


@pytest.mark.parametrize("change", ["shape", "missing", "extra"])
def test_another_model_is_refused_and_nothing_is_set_aside(tmp_path, state, change):
    save(tmp_path, state, [1, 2])
    other = dict(state)
    if change == "missing":
        del other["half"]
    else:
        other["half" if change == "shape" else "more"] = state["kernel"]
    with Checkpoints(tmp_path, every=1) as checkpoints:
        with pytest.raises(UserError, match="is of another model"):
            checkpoints.restore(other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_readers_change_nothing(tmp_path, state):
    save(tmp_path, state, [1, 2])
    truncate(largest_file(tmp_path / "2" / "state"))
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(tmp_path, every=1, read_only=True) as checkpoints:
        assert_same(checkpoints.restore(state), state)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["1", "2", "3.orbax-checkpoint-tmp"]


def test_a_full_disk_is_seen_before_writing(tmp_path, state, monkeypatch):
    save(tmp_path, state, [1])
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    with Checkpoints(tmp_path, every=1) as checkpoints:
        with pytest.raises(UserError, match="disk full.*last good one is at step 1"):
            checkpoints.save(state, 2)
        assert_same(checkpoints.restore(state), state)


@pytest.mark.parametrize("every, keep", [(0, 2), (1, 1)])
def test_impossible_settings(tmp_path, every, keep):
    with pytest.raises(UserError, match="every >= 1 and keep >= 2"):
        Checkpoints(tmp_path, every=every, keep=keep)


def test_the_digest_sees_every_bit_and_no_mesh(state):
    plain = {name: np.asarray(x) for name, x in state.items()}
    reference = jax.device_get(jax.jit(digest)(plain))
    assert jax.device_get(jax.jit(digest)(state)) == reference
    words = plain["kernel"].view(np.uint32).astype(object).ravel()
    expected = sum(int(w) * (2 * i + 1) for i, w in enumerate(words)) % 2**32
    assert int(reference["kernel"]) == expected
    for bit in range(32):
        changed = plain["kernel"].copy()
        changed.view(np.uint32)[bit, bit] ^= np.uint32(1 << bit)
        assert int(jax.jit(digest)({"kernel": changed})["kernel"]) != int(reference["kernel"])
    swapped = plain["kernel"].copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    assert int(jax.jit(digest)({"kernel": swapped})["kernel"]) != int(reference["kernel"])
