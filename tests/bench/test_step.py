"""The benchmark of the training step measures what it says."""

import json
import time

import jax
import numpy as np
import pytest

from mae_jax.bench import step as bench
from mae_jax.bench.flops import count
from mae_jax.bench.parts import Live
from mae_jax.bench.setup import make_setup, sized
from mae_jax.bench.timing import measure, spread
from mae_jax.types import UserError
from tests.helpers import tiny, tiny_tasks


def test_turns_alternate_and_the_first_calls_do_not_count():
    calls = []

    def work(name, seconds):
        def run(times):
            slow = 9.0 if len(calls) < 6 else 1.0  # two calls and a turn of each
            calls.append((name, times))
            return slow * times * seconds

        return run

    found = measure({"a": work("a", 0.5), "b": work("b", 0.05)}, turns=2, seconds=1.0)
    assert calls[:4] == [("a", 1), ("a", 1), ("b", 1), ("b", 1)]
    assert calls[4:] == [("a", 1), ("b", 2)] * 3  # 1 s of 0.45 s each
    np.testing.assert_allclose(found["a"], [0.5, 0.5])
    np.testing.assert_allclose(found["b"], [0.05, 0.05])


def test_work_waits_for_its_results():
    def slow(x):
        time.sleep(0.05)
        return np.asarray(x)

    call = jax.jit(lambda x: jax.pure_callback(slow, jax.ShapeDtypeStruct((), np.float32), x))
    work = bench.repeat(lambda: call(np.float32(1)))
    work(1)
    assert work(3) > 0.15


def test_calls_on_devices_that_share_threads_do_not_overlap(monkeypatch):
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", waited.append)
    bench.repeat(lambda: 7)(3)
    assert waited[:3] == [7, 7, 7]


def test_half_of_the_turns_lie_in_the_spread():
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == dict(median=3.0, low=2.0, high=4.0)


@pytest.mark.slow
@pytest.mark.thorough
def test_a_report_of_a_tiny_step(monkeypatch):
    monkeypatch.setitem(bench.SIDES, "cpu", (64, 128))
    hits, folder = [], jax.config.jax_compilation_cache_dir
    jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
    config = tiny.get_config()
    report = bench.bench_step(config, turns=3, seconds=0.01)
    assert jax.config.jax_compilation_cache_dir == folder
    assert "/jax/compilation_cache/cache_hits" in hits  # the second compilation
    json.dumps(report)
    assert set(report["parts"]) == {"encoder", "decoder", "loss", "gradient", "optimizer"}
    seconds = {name: np.array(values) for name, values in report["seconds"].items()}
    rate = report["images_per_second"]["median"]
    assert rate == pytest.approx(8 / np.median(seconds["ours"]))
    small, large = (2 * side**3 / seconds[f"matmul {side}"] for side in (64, 128))
    flops = sum(count(make_setup(config).method, (8, 12, 3)).train.values())
    used = flops * 8 / seconds["ours"] / np.maximum(small, large)  # fake devices count as one
    assert report["mfu"]["median"] == pytest.approx(np.median(used))
    share = np.median(seconds["part encoder"] / seconds["ours"])
    assert report["parts"]["encoder"]["share"]["median"] == pytest.approx(share)
    # Parameters and two moments at the least.
    assert report["memory"]["step"] > 3 * 4 * report["parameters"] / 1e6
    assert report["xla_compiled_gflops"] > flops / 1e9 * 0.9
    titles = [table.title for table in bench.tables(report)]
    assert len(titles) == 2 and "8 images of 8 x 12 x 3, float32" in titles[0]


def test_the_other_library_stands_beside_ours_turn_by_turn():
    found = {"ours": [1.0, 2.0, 4.0], "part optimizer": [0.1], "matmul 64": [0.1]}
    found["elsewhere"] = [3.0, 4.0, 4.0]
    peers = bench.beside(found, 8)
    assert list(peers) == ["elsewhere"]
    assert peers["elsewhere"]["ratio"]["median"] == 2.0  # of 3, 2 and 1
    assert peers["elsewhere"]["images_per_second"]["median"] == 2.0


@pytest.mark.thorough
def test_parts_leave_the_loss_of_the_network_alone():
    """The given prediction is scored as the method scores its own network's."""
    setup = make_setup(tiny.get_config())
    live = Live(setup, setup.step())
    calls = live.calls()
    loss, gradient = calls["loss"]()
    assert gradient.shape[::2] == (8, 48) and np.isfinite(loss)
    (whole, _), gradients = calls["gradient"]()
    assert loss == pytest.approx(float(whole), rel=1e-4)
    for part in ("encoder", "decoder"):
        made = calls[part]() if part == "encoder" else calls[part]()[0]
        assert jax.tree.structure(made) == jax.tree.structure(gradients[part])
    before = jax.device_get(live.state.params)
    assert int(calls["optimizer"]()) == 1
    assert int(calls["optimizer"]()) == 2
    embed = live.state.params["encoder"]["embed"]["kernel"]
    assert (before["encoder"]["embed"]["kernel"] != embed).any()


def test_setups_have_what_a_config_asks_for():
    config = tiny_tasks.get_config("finetune")
    setup = make_setup(config)
    batch = setup.batch()
    assert batch["label"].dtype == np.int32 and int(batch["label"].max()) < setup.method.classes
    assert batch["image"].shape == (config.data.batch_size, *setup.shape)
    assert batch["image"].sharding.num_devices == 2 and int(batch["image"].max()) > 200


def test_images_are_of_the_size_that_training_makes_or_is_told():
    config = tiny.get_config()
    assert sized(config) == ((8, 12, 3), {})
    assert sized(config, [16]) == ((16, 16, 3), {})
    assert sized(config, [16, 20]) == ((16, 20, 3), {})
    assert sized(config, [16, 20, 1]) == ((16, 20, 1), {})
    assert sized(config, [8, 16, 20, 1]) == ((8, 16, 20, 1), {})
    with pytest.raises(UserError, match="--image-size 0"):
        sized(config, [0])
    config.data.train_transform = ""
    shape, rows = sized(config)
    assert shape == (16, 16, 3) and rows["image"].shape == (1, *shape), "as the source has them"


@pytest.mark.parametrize("wrong", [dict(turns=0), dict(seconds=0.0), dict(peer="keras")])
def test_numbers_that_make_no_sense(wrong):
    with pytest.raises(UserError, match="must be above 0|choose hf"):
        bench.bench_step(tiny.get_config(), **wrong)
