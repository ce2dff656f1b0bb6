"""The log of a run when its disk is full."""

import errno

import pytest
from tensorboardX import event_file_writer

from mae_jax.engine.log import Log, read
from mae_jax.types import UserError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_events_that_cannot_be_written_end_the_run_and_do_not_hang_it(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Log(workdir=tmp_path, start=0, total=99, every=1) as log:
        log.write(1, {"loss": 1.0})
        monkeypatch.setattr(event_file_writer.EventsWriter, "write_event", full)
        log.write(2, {"loss": 1.0})
        log.events.file_writer.event_writer._worker.join(timeout=10)
        with pytest.raises(UserError, match="disk full. The events for TensorBoard"):
            log.write(3, {"loss": 1.0})
    assert [line["step"] for line in read(log.path)] == [1, 2, 3]
