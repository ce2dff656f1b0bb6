"""A job of two processes is told to stop, and goes on as one process with another mesh;
`tests/campaigns/elastic.py` measures more layouts. test_launch.py stops two processes, and
test_train.py goes on with another mesh.
"""

import pytest

from mae_jax.restore import load_run
from mae_jax.train import train
from mae_jax.types import PREEMPTED
from tests.campaigns import elastic
from tests.helpers.runs import losses, tiny

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def test_processes_stop_at_the_same_step_and_one_goes_on_with_another_mesh(tmp_path):
    config = tiny(*elastic.OPTIONS, "mesh.data=2", "mesh.fsdp=1")
    train(config, tmp_path / "one")
    workdir = tmp_path / "two"
    found, codes = elastic.train(workdir, processes=2, devices=1, mesh=(1, 2), stop=7)
    zero, one = ((tmp_path / f"two_{index}.log").read_text() for index in (0, 1))
    assert codes == [PREEMPTED] * 2, zero + one
    last = max(found)
    assert 7 <= last < 14 and f"after step {last} of 20, which is saved: run again" in zero
    assert "mae-jax" not in one
    _, state = load_run(workdir)
    assert int(state.step) == last
    train(config, workdir)
    assert elastic.apart(dict(losses(workdir)), dict(losses(tmp_path / "one"))) < 1e-6
