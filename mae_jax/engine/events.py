"""TensorBoard event files, written with TensorBoard's own record writer and protocol buffers.

Its `EventFileWriter` is not used: it imports TensorFlow if that is installed, and it writes in a
thread that dies when the disk is full. Here a failed write raises `OSError` in the caller.
"""

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter


class Events:
    """One event file of a run.

    Args:
        folder: folder of the run's event files; created if missing.
        purge_step: TensorBoard ignores events of earlier files from this step on.
    """

    def __init__(self, folder: Path, *, purge_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{now:.0f}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        self._file = self.path.open("ab", buffering=0)
        self._writer = RecordWriter(self)
        session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        # TensorBoard requires this order: the version, then the step where this file begins.
        self._add(event_pb2.Event(wall_time=now, file_version="brain.Event:2"))
        self._add(event_pb2.Event(wall_time=now, step=purge_step, session_log=session))

    def write(self, data: bytes) -> None:
        """Appends one complete record; called by the record writer."""
        while data:  # an unbuffered write may be short
            data = data[self._file.write(data) :]

    def scalars(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """Records named numbers after `step` steps."""
        items = [summary_pb2.Summary.Value(tag=k, simple_value=v) for k, v in values.items()]
        summary = summary_pb2.Summary(value=items)
        self._add(event_pb2.Event(wall_time=wall_time, step=step, summary=summary))

    def image(
        self, step: int, name: str, png: bytes, size: tuple[int, int], text: str, wall_time: float
    ) -> None:
        """Records a picture after `step` steps.

        Args:
            png: the encoded picture.
            size: its height and width.
            text: Markdown that TensorBoard shows as the description.
        """
        height, width = size
        image = summary_pb2.Summary.Image(height=height, width=width, encoded_image_string=png)
        plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="images")
        metadata = summary_pb2.SummaryMetadata(summary_description=text, plugin_data=plugin)
        value = summary_pb2.Summary.Value(tag=name, image=image, metadata=metadata)
        summary = summary_pb2.Summary(value=[value])
        self._add(event_pb2.Event(wall_time=wall_time, step=step, summary=summary))

    def _add(self, event: event_pb2.Event) -> None:
        self._writer.write(event.SerializeToString())

    def close(self) -> None:
        """Closes the file, which is unbuffered and so complete."""
        with contextlib.suppress(OSError):
            self._file.close()
