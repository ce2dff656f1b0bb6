"""Steps compiled for other numbers of devices, each in a process of its own."""

import json

import pytest

from mae_jax.bench import scaling
from mae_jax.types import UserError
from tests.helpers import tiny


@pytest.mark.slow
@pytest.mark.thorough
def test_another_process_has_as_many_devices_as_the_mesh():
    config = tiny.get_config()
    config.data.batch_size = 6
    config.mesh.update(data=3, fsdp=1)
    row = scaling.count_elsewhere(config, [8])
    assert row["devices"] == 3 and row["mesh"] == {"data": 3, "fsdp": 1}
    assert set(row["totals"]) == {"all-reduce"} and row["largest_gather"] == 0
    moved = row["totals"]["all-reduce"]["moved"]
    assert moved == pytest.approx(row["parameter_bytes"] * 2 * 2 / 3, rel=0.01)


def test_mistakes_in_the_other_process_are_ours():
    config = tiny.get_config()
    config.mesh.update(data=1, fsdp=1)
    config.method.name = "nothing"
    with pytest.raises(UserError, match="methods has no 'nothing'"):
        scaling.count_elsewhere(config, [8])


def test_every_mesh_is_compiled_once_and_tabulated(monkeypatch):
    asked = []

    def count(config, image_size):
        asked.append((config.mesh.data, config.mesh.fsdp, tuple(image_size)))
        sums = dict(count=2, payload=8, moved=12e6)
        return dict(mesh=dict(config.mesh), parameter_bytes=6e6, totals={"all-reduce": sums})

    monkeypatch.setattr(scaling, "count_elsewhere", count)
    config = tiny.get_config()
    report = scaling.bench_scaling(config, image_size=[8], most=4)
    meshes = [(1, 1), (2, 1), (1, 2), (4, 1), (1, 4), (2, 2)]
    assert asked == [(*mesh, (8,)) for mesh in meshes]
    assert config.mesh.data == -1  # the caller's stays
    layouts = [row["layout"] for row in report["collectives"]]
    assert layouts == ["one device", "data", "fsdp", "data", "fsdp", "hybrid"]
    json.dumps(report)
    drawn = scaling.tables(report)
    assert list(drawn[0].columns[2].cells) == ["2, 12.00"] * 6
    assert list(drawn[0].columns[3].cells) == ["2.00"] * 6
    assert len(drawn) == 1


@pytest.mark.parametrize("most", [0, 3])
def test_devices_are_a_power_of_two(most):
    with pytest.raises(UserError, match="power of two"):
        scaling.bench_scaling(tiny.get_config(), most=most)
