"""The estimates on paper, against sums done by hand."""

import numpy as np
import pytest

from mae_jax.bench.flops import mae_parameters
from mae_jax.bench.roofline import (
    CHIPS,
    LAYOUTS,
    MACHINES,
    MODELS,
    as_rows,
    estimate,
    estimates,
    tables,
)
from mae_jax.methods import mae
from mae_jax.types import UserError

MACHINE = {machine.name: machine for machine in MACHINES}


def one(model, machine, chips, layout, batch_size=4096, mfu=0.4):
    """An estimate."""
    return estimate(model, MACHINE[machine], chips, layout, batch_size=batch_size, mfu=mfu)


@pytest.mark.parametrize(
    "machine, chips, bandwidths",
    [
        ("TPU v5e", 8, [9e10]),  # 2 x 4: no ring
        ("TPU v5e", 128, [1.35e11]),  # 8 x 16: a ring and a line
        ("TPU v5e", 256, [1.8e11]),
        ("TPU v5e", 1024, [1.8e11, 8e11]),  # four pods of 32 hosts with 25 GB/s each
        ("TPU v5p", 8, [2.7e11]),
        ("TPU v5p", 64, [5.4e11]),
        ("TPU v5p", 1024, [5.4e11]),
        ("TPU v6e", 256, [3.6e11]),
        ("H100 node", 8, [4.5e11]),
        ("H100 node", 512, [4.5e11, 4e11]),
    ],
)
def test_bandwidths_of_what_the_chips_span(machine, chips, bandwidths):
    found = list(MACHINE[machine].levels(chips).values())
    np.testing.assert_allclose(found, bandwidths, rtol=1e-12)


def test_vit_l_on_a_pod_of_v5e_by_hand():
    """327 M parameters outside of norms and biases; 1.245e11 operations an image, 16 images."""
    found = one("ViT-L/16", "TPU v5e", 256, "data")
    blocks = 24 * 12 * 1024**2 + 8 * 12 * 512**2
    others = 768 * 1024 + 1024 * 512 + 512 * 768
    np.testing.assert_allclose(found.communication, 2 * 4 * (blocks + others) / 1.8e11, rtol=2e-3)
    assert found.communication == pytest.approx(14.5e-3, rel=0.02)
    assert found.arithmetic == pytest.approx(16 * 1.245e11 / (0.4 * 197e12), rel=0.01)
    assert found.optimizer == pytest.approx(28 * 3.285e8 / 8.19e11, rel=0.01)
    assert found.images_per_chip == 16 and found.bound == "slice"
    assert found.best == found.arithmetic + found.optimizer  # more than communication
    assert found.worst == pytest.approx(found.best + found.communication)
    assert found.images_per_second(0.5) == pytest.approx(8192)


def test_gradients_between_nodes_wait_for_the_network():
    inside, across = (one("ViT-L/16", "H100 node", n, "data") for n in (8, 16))
    assert (inside.bound, across.bound) == ("node", "network")
    assert inside.communication == pytest.approx(5.8e-3, rel=0.02)
    assert across.communication == pytest.approx(6.5e-3, rel=0.02)


def test_layouts_differ_in_traffic_and_in_what_the_optimizer_reads():
    data, fsdp, hybrid = (one("ViT-B/16", "H100 node", 64, layout) for layout in LAYOUTS)
    assert fsdp.communication == pytest.approx(1.5 * data.communication)
    # Three times inside of a node, or twice across nodes: the slower is inside.
    size = 4 * mae_parameters(mae.make(), 3)
    assert hybrid.communication == pytest.approx(3 * size / 4.5e11) and hybrid.bound == "node"
    assert data.optimizer == pytest.approx(64 * fsdp.optimizer)
    assert data.optimizer == pytest.approx(8 * hybrid.optimizer)
    assert data.arithmetic == fsdp.arithmetic == hybrid.arithmetic


def test_efficiency_is_between_what_hides_nothing_and_all():
    found = estimates(batch_size=4096, mfu=0.5)
    assert len(found) == len(MODELS) * len(MACHINES) * len(CHIPS) * len(LAYOUTS)
    rows = as_rows(found)
    assert all(0 < row["efficiency"][0] < row["efficiency"][1] <= 1 for row in rows)
    few = next(row for row in rows if row["chips"] == 8)
    rate = few["efficiency"][1] * 8 * 0.5 * 197e12 / 5.87e10
    assert few["images_per_second"][1] == pytest.approx(rate, rel=0.01)
    drawn = tables(found, batch_size=4096, mfu=0.5)
    assert len(drawn) == len(MODELS) and all(table.row_count == len(CHIPS) for table in drawn)
    assert all("ON PAPER" in table.title for table in drawn)


def test_no_chip_is_without_an_image():
    assert {found.chips for found in estimates(batch_size=64, mfu=0.4)} == {8, 16, 32, 64}


@pytest.mark.parametrize("wrong", [dict(mfu=0.0), dict(mfu=1.5), dict(batch_size=4)])
def test_numbers_that_make_no_sense(wrong):
    with pytest.raises(UserError, match="must be"):
        estimates(**(dict(mfu=0.4, batch_size=4096) | wrong))
