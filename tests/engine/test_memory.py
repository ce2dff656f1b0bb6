"""What is said when memory runs out, and that nothing else is taken for it."""

import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from mae_jax.engine import memory
from mae_jax.engine.memory import explained
from mae_jax.engine.mesh import make_mesh
from mae_jax.engine.step import plan_state
from mae_jax.types import UserError
from tests.helpers.plain_method import PlainMethod

ADVICE = "lower config.data.batch_size (4096 now)"
PARTS = ": microbatches of 32 images or fewer per chip also move less memory"
REMAT, DECODER = "; then set remat=full in vit(...)", " and decoder_remat=full"


def test_too_large_an_array_names_the_setting_to_lower():
    huge = jax.jit(lambda: jnp.ones((1 << 22, 1 << 24)))
    with pytest.raises(UserError, match=r"is not enough for an allocation of \d+ bytes") as error:
        with explained(ADVICE):
            huge().block_until_ready()
    assert str(error.value).endswith(ADVICE) and "\n" not in str(error.value)


def test_memory_of_the_host():
    with pytest.raises(UserError, match="of this machine is not enough: lower"), explained(ADVICE):
        raise MemoryError()


@pytest.mark.parametrize(
    ("platform", "args", "rest"),
    [
        ("tpu", dict(encoder="vit(B)", decoder_remat="none"), PARTS + REMAT + DECODER),
        ("tpu", dict(encoder="convnext(T)", decoder_remat="none"), PARTS),
        ("gpu", dict(encoder="vit(B)"), REMAT),
        ("cpu", dict(), ""),
    ],
)
def test_the_advice_for_a_step_that_does_not_fit_starts_with_what_costs_least(
    monkeypatch, platform, args, rest
):
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(platform=platform)])
    config = ConfigDict(dict(data=dict(batch_size=4096), accumulate=2, method=dict(args=args)))
    with pytest.raises(UserError) as error, explained(lambda: memory.step_advice(config)):
        raise MemoryError()
    assert str(error.value).endswith(
        "lower config.data.batch_size (4096 now), or raise config.accumulate (2 now)" + rest
    )


def test_other_errors_stay_what_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), explained(ADVICE):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
    with pytest.raises(ZeroDivisionError), explained(ADVICE):
        1 / 0  # noqa: B018


def test_a_state_is_measured_on_each_device():
    mesh = make_mesh(data=1, fsdp=2)
    shape = lambda *sizes, spec: jax.ShapeDtypeStruct(
        sizes, jnp.float32, sharding=NamedSharding(mesh, spec)
    )
    split, whole = shape(4, 1000, spec=P(None, "fsdp")), shape(10**12, spec=P())
    assert memory.bytes_on_device({"a": split}) == 4 * 500 * 4
    memory.check_state({"a": split})
    with pytest.raises(UserError, match=r"needs 4 TB on each of 2 devices.*array is b, \[10{12}\]"):
        memory.check_state({"a": split, "b": whole})


def test_a_device_with_a_limit_of_its_own(monkeypatch):
    stats = [dict(bytes_limit=100, bytes_in_use=30), dict(bytes_limit=90)]
    devices = [SimpleNamespace(platform="gpu", memory_stats=lambda s=s: s) for s in stats]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert memory.free_memory() == 70
    stats[1].clear()  # a device that does not report it: nothing is refused
    assert memory.free_memory() is None
    memory.check_room(10**30, "everything", "lower it")


@pytest.mark.parametrize("version", [1, 2])
def test_the_least_of_machine_and_cgroups_counts(tmp_path, monkeypatch, version):
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 90 kB\nMemAvailable: 50 kB\nSwapFree: 10 kB\n")
    monkeypatch.setattr(memory, "PROC", proc)
    monkeypatch.setattr(memory, "CGROUPS", groups)
    assert memory.host_memory() == 60 * 1024  # no cgroups
    root = groups if version == 2 else groups / "memory"
    lines = "0::/a/b\n" if version == 2 else "9:cpu:/x\n4:memory:/a/b\n"
    (proc / "self" / "cgroup").write_text(lines)
    names = ("memory.max", "memory.current")
    names = names if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    prefix = "" if version == 2 else "inactive_file 7\nactive_file 7\ntotal_"
    for folder, limit in (("a", "5000"), ("a/b", "max" if version == 2 else str(2**63 - 4096))):
        (root / folder).mkdir(parents=True)
        (root / folder / names[0]).write_text(limit)
        (root / folder / names[1]).write_text("4000")
        stat = f"{prefix}inactive_file 100\n{prefix and 'total_'}active_file 200\n"
        (root / folder / "memory.stat").write_text(stat)
    assert memory.host_memory() == 5000 - 4000 + 300


def test_the_memory_of_this_machine_is_plausible():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory.host_memory() <= total + 2**40
    assert memory.free_memory() * 2 <= total + 2**40  # two devices share it


def test_fresh_states_are_refused_before_they_are_made(monkeypatch):
    class Method(PlainMethod):
        def init(self, key, batch):
            return {"weight": jnp.zeros((1000, 1000))}, {}

    tx = optax.identity()
    batch = {"image": np.zeros((1, 2, 2, 1), np.uint8)}
    initial_state, _ = plan_state(make_mesh(), Method(), tx, batch, seed=0)
    monkeypatch.setattr(memory, "free_memory", lambda: 3_999_999)
    with pytest.raises(UserError, match=r"needs 4 MB .* array is params/weight, \[1000, 1000\]"):
        initial_state()
