"""TensorBoard event files, written with TensorBoard's own record writer and protocol buffers.

Its `EventFileWriter` is not used: it imports TensorFlow if that is installed, and it writes in a
thread that dies when the disk is full. Here a failed write ends the run, which can resume.
"""

import contextlib
import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from mae_jax.tables import markdown, results_rows
from mae_jax.types import Metric, UserError
from mae_jax.writers.writer import Session, Writer


class TensorBoard(Writer):
    """One event file per start of a run, in the workdir's `events/`."""

    replaces = True  # TensorBoard ignores events of earlier files from the step of this one on

    def __init__(self):
        self.folder: Path | None = None
        self._file: io.FileIO | None = None

    def start(self, session: Session) -> None:
        """Creates the event file, and the folder if it is missing."""
        self.folder = session.workdir / "events"
        now = time.time()
        name = f"events.out.tfevents.{now:.0f}.{socket.gethostname()}.{os.getpid()}"
        self.path = self.folder / name
        begun = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            self._records = RecordWriter(self)
            # TensorBoard requires this order: the version, then the step where this file begins.
            self._add(event_pb2.Event(wall_time=now, file_version="brain.Event:2"))
            first = session.start + 1
            self._add(event_pb2.Event(wall_time=now, step=first, session_log=begun))

    def write(self, data: bytes) -> None:
        """Appends one complete record; called by the record writer."""
        while data:  # an unbuffered write may be short
            data = data[self._file.write(data) :]

    def scalars(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """Records named numbers after `step` steps."""
        items = [summary_pb2.Summary.Value(tag=k, simple_value=v) for k, v in values.items()]
        self._summary(step, items, wall_time)

    def image(self, step: int, name: str, pixels: np.ndarray, text: str, wall_time: float) -> None:
        """Records a picture [H, W, 3] uint8 with a description in Markdown."""
        file, (height, width) = io.BytesIO(), pixels.shape[:2]
        Image.fromarray(pixels).save(file, "png")
        image = summary_pb2.Summary.Image(
            height=height, width=width, encoded_image_string=file.getvalue()
        )
        plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="images")
        metadata = summary_pb2.SummaryMetadata(summary_description=text, plugin_data=plugin)
        value = summary_pb2.Summary.Value(tag=name, image=image, metadata=metadata)
        self._summary(step, [value], wall_time)

    def results(
        self,
        step: int,
        results: Mapping[str, Mapping[str, float]],
        metrics: Mapping[str, Metric],
        wall_time: float,
    ) -> None:
        """Records the final table as a text, in Markdown."""
        text = markdown(results_rows(results, metrics))
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[text.encode()])
        plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
        metadata = summary_pb2.SummaryMetadata(plugin_data=plugin)
        value = summary_pb2.Summary.Value(tag="results", tensor=tensor, metadata=metadata)
        self._summary(step, [value], wall_time)

    def finish(self, *, failed: bool) -> None:
        """Closes the file, which is unbuffered and so complete."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def _summary(self, step: int, values: list, wall_time: float) -> None:
        summary = summary_pb2.Summary(value=values)
        with self._explained():
            self._add(event_pb2.Event(wall_time=wall_time, step=step, summary=summary))

    def _add(self, event: event_pb2.Event) -> None:
        self._records.write(event.SerializeToString())

    @contextlib.contextmanager
    def _explained(self):
        """Turns a failed write into a one-line UserError."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write the events for TensorBoard in {self.folder} ({error.strerror}): "
                "free some space or fix the folder, and run again to resume"
            ) from error


def make() -> TensorBoard:
    """Makes the writer of event files: `tensorboard --logdir runs` shows them."""
    return TensorBoard()
