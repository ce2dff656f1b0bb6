"""The log of a run: damaged files, full disks, event files as TensorBoard reads them, and the lines
and bars that people see.
"""

import contextlib
import errno
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mae_jax.engine import log as logs
from mae_jax.engine.log import Log, drop_after, read
from mae_jax.engine.progress import clock, describe, make_progress
from mae_jax.types import Metric, UserError
from mae_jax.writers import tensorboard
from mae_jax.writers.delivery import Writers

VALUES = {"grad_norm": 0.40224, "loss": 1.1107, "skipped": 0.0, "lr": 0.0029786}
VALUES |= {"images_per_s": 1182.8, "data_wait": 0.3136}


@contextlib.contextmanager
def log(folder, **options):
    """A log with its writer of TensorBoard's events, which is its attribute `events`."""
    events = tensorboard.make()
    with Writers({"tensorboard": events}, workdir=folder, config={}) as writers:
        options = dict(start=0, total=99, every=1) | options
        with Log(workdir=folder, writers=writers, **options) as written:
            written.events = events
            yield written


def test_events_that_cannot_be_written_end_the_run(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"events .* \(No space left on device\): free some"):
        with log(tmp_path) as written:
            written.write(1, {"loss": 1.0})
            monkeypatch.setattr(written.events, "write", full)
            written.write(2, {"loss": 1.0})
    assert [line["step"] for line in read(written.path)] == [1, 2]


def test_a_folder_of_events_that_is_none_is_named(tmp_path):
    (tmp_path / "events").write_text("")
    with pytest.raises(UserError, match=f"{tmp_path}/events .File exists."):
        with log(tmp_path):
            pass


def damaged(path):
    """Writes a metrics file of steps 1 to 5 with every kind of damage but in step 2 and 4."""
    one, two, three, four, five = (json.dumps({"step": i, "loss": i / 2}) for i in range(1, 6))
    lines = [
        one.encode(),
        b"\x80\xff\x00 garbage",
        b"\xef\xbb\xbf" + two.encode() + b"\r",
        b"\0\0\0\0" + three.encode(),  # what a crash leaves where a line was to be
        b"\0\0\0\0",
        b'{"loss": 3}',
        b'{"step": "3", "loss": 3}',
        b'{"step": 3, "loss": null}',
        b'{"step": 3, "lo' + three.encode(),
        b"[" * 100_000,
        b"[]",
        b"",
        three.encode(),
        four.encode(),
        five.encode()[:-3],
    ]
    path.write_bytes(b"\n".join(lines))
    return [{"step": i, "loss": i / 2} for i in range(1, 5)]


def test_a_damaged_file_is_kept_and_the_run_goes_on_with_what_is_whole(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    whole = damaged(path)
    before = path.read_bytes()
    assert read(path) == whole and path.read_bytes() == before
    with log(tmp_path, start=3):
        pass
    assert read(path) == whole[:3]
    aside = tmp_path / "metrics.damaged-0.jsonl"
    assert aside.read_bytes() == before
    said = f"{path}: left out 9 damaged line(s), number 2, 5, 6, 7, 8, 9, 10, 11, 13"
    assert [record.getMessage() for record in caplog.records] == [
        said,
        f"{said}; the file as it was is now {aside.name}",
    ]
    path.write_text("damaged again\n" + path.read_text())
    drop_after(path, 9)
    assert (tmp_path / "metrics.damaged-1.jsonl").is_file() and read(path) == whole[:3]


def test_a_last_line_cut_short_is_nothing_to_report(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    for rest in ('{"step": 2, "lo', "\0\0", " "):
        path.write_text('{"step": 1, "loss": 2.0}\n' + rest)
        assert read(path) == [{"step": 1, "loss": 2.0}]
    drop_after(path, 0)
    assert path.read_text() == "" and not caplog.records


def test_tensorboard_reads_scalars_and_pictures_and_drops_what_was_done_again(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", sys)  # as where it is missing
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    with log(tmp_path) as first:
        for step in range(1, 6):
            first.write(step, {"loss": float(step)})
        first.picture(2, "reconstructions", pixels, "kept")
        first.picture(5, "reconstructions", pixels, "done again")
    with log(tmp_path, start=3) as second:
        second.events.path.rename(tmp_path / "events" / "events.out.tfevents.9999999999.later")
        for step in (4, 5):
            second.write(step, {"loss": -float(step), "eval/knn": 0.5})
        second.picture(5, "reconstructions", pixels[::-1], "Rows: a; b")
        second.writers.results(5, {"mae": {"knn": 0.5}}, {"knn": Metric()})
    found = accumulator.EventAccumulator(str(tmp_path / "events"), size_guidance={"images": 0})
    found.Reload()
    scalars = [(event.step, event.value) for event in found.Scalars("loss")]
    assert scalars == [(1, 1), (2, 2), (3, 3), (4, -4), (5, -5)]
    assert [(event.step, event.value) for event in found.Scalars("eval/knn")] == [
        (4, 0.5),
        (5, 0.5),
    ]
    times = [line["time"] for line in read(second.path)]
    assert np.allclose(times, [event.wall_time for event in found.Scalars("loss")], atol=2e-3)
    pictures = found.Images("reconstructions")
    assert [(image.step, image.width, image.height) for image in pictures] == [(2, 6, 4), (5, 6, 4)]
    shown = np.asarray(Image.open(io.BytesIO(pictures[1].encoded_image_string)))
    np.testing.assert_array_equal(shown, pixels[::-1])
    assert found.SummaryMetadata("reconstructions").summary_description == "kept"
    (table,) = found.Tensors("results")
    text = b"| features | knn % |\n| --- | --- |\n| mae | 50.0 |\n"
    assert (table.step, [*table.tensor_proto.string_val]) == (5, [text])
    assert found.SummaryMetadata("results").plugin_data.plugin_name == "text"


@pytest.mark.parametrize("width", [40, 60, 80, 120, 160])
def test_the_bar_is_whole_at_any_width(width):
    screen = io.StringIO()
    console = Console(file=screen, width=width, height=20, force_terminal=True, color_system=None)
    progress = make_progress(console, visible=True)
    task = progress.add_task("step", total=12500, completed=1234, values=VALUES)
    progress.tasks[0].start_time = 0.0
    progress.update(task, advance=1)
    console.print(progress.get_renderable())
    line, *others = screen.getvalue().splitlines()
    assert not any(map(str.strip, others)), "it is one line"
    assert line.startswith("step ━") and " 1235/12500 " in line and len(line) == width
    assert line.index("1235") >= 14, "a bar of 8 columns or more"
    assert line.rstrip().endswith("-:--:--"), "the time left"
    wanted = {
        40: [],
        60: ["loss 1.111"],
        80: ["loss 1.111", "images/s 1183", "data wait 31%"],
        120: ["grad norm 0.4022", "loss 1.111", "lr 0.002979", "images/s 1183", "data wait 31%"],
    }
    assert [part for part in describe(VALUES).split("  ") if part in line] == wanted[
        min(width, 120)
    ]


def test_metrics_are_left_out_from_the_least_important_one_on():
    assert describe(VALUES | {"skipped": 3.0}, 24) == "loss 1.111  skipped 3"
    assert describe({"eval/knn": 0.25}) == "knn 0.25"
    assert describe({"images_per_s": 41523.4}) == "images/s 41523"
    assert describe(VALUES, 0) == describe(VALUES, -9) == ""


def test_without_a_terminal_a_line_has_the_time_left(tmp_path, capsys, monkeypatch):
    with log(tmp_path, total=100) as written:
        ticks = iter(range(0, 1000, 90))
        written.progress.get_time = lambda: next(ticks)
        for step in (1, 2, 3):
            written.advance(step)
        written.write(3, {"loss": 0.5})
        written.write(3, {"eval/knn": 0.25})
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["step 3/100  loss 0.5  2:25:30 left", "step 3/100  knn 0.25"]
    assert clock(97 * 90) == "2:25:30" and clock(59.7) == "0:01:00"


def test_evaluations_stay_on_a_terminal(tmp_path, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(logs, "console", Console(file=screen, width=80, force_terminal=True))
    monkeypatch.setattr(logs, "on_terminal", lambda console: True)
    with log(tmp_path, total=100) as written:
        written.write(50, {"loss": 0.5})
        written.write(50, {"eval/knn": 0.25})
    assert "step 50/100  knn 0.25\n" in screen.getvalue() and "left" not in screen.getvalue()
