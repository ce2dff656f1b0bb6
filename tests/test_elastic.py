"""A run that is stopped on two processes goes on on one; `elastic.py` measures more layouts."""

from mae_jax.types import PREEMPTED
from tests.elastic import apart, train


def test_a_run_goes_on_with_other_processes_and_another_mesh(tmp_path):
    expected, codes = train(tmp_path / "one", processes=1, devices=2, mesh=(2, 1))
    assert codes == [0]
    workdir = tmp_path / "two"
    found, codes = train(workdir, processes=2, devices=1, mesh=(1, 2), stop=7)
    assert codes == [PREEMPTED] * 2 and 7 <= max(found) < 20
    found, codes = train(workdir, processes=1, devices=2, mesh=(2, 1))
    assert codes == [0]
    assert apart(found, expected) < 1e-6
