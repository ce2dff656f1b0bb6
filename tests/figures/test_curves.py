"""Learning curves: one axes for each unit, values in the unit that their metric declares."""

import matplotlib.image
import numpy as np

from mae_jax.figures import curves
from mae_jax.figures.figure import FigureContext
from mae_jax.types import Metric

METRICS = {
    "psnr": Metric("dB", 2),
    "knn": Metric(),
    "error": Metric(lower_is_better=True),
    "head": Metric("", 0, table=""),
}
LINES = [{"step": step, "loss": 10 / step, "lr": 0.1} for step in (5, 10)] + [
    {"step": 5, "eval/psnr": 20.0, "eval/knn": 0.25, "eval/error": 0.5, "eval/head": 2.0}
]
RESULTS = {
    "raw pixels": {"knn": 0.125},
    "random encoder": {"knn": 0.0625, "psnr": 5.0},
    "mae": {"psnr": 23.4, "knn": 0.5},
}


def context(folder, lines=LINES, results=RESULTS, metrics=METRICS):
    """Of a run of 12 steps, which nothing has to be computed for."""
    rest = dict(method=None, data=None, split="test", predict=None, pictures=None)
    return FigureContext(
        step=12, folder=folder, lines=lines, results=results, metrics=metrics, **rest
    )


def panels(found):
    """(unit, {label: y of a line}) of each axes with metrics."""
    axes = [axis for axis in found.axes[1:] if axis.get_title() == "held-out images"]
    lines = [{line.get_label(): list(line.get_ydata()) for line in axis.lines} for axis in axes]
    return [(axis.get_ylabel(), found) for axis, found in zip(axes, lines, strict=True)]


def test_each_unit_has_its_axes(tmp_path):
    found = curves.drawn(context(tmp_path))
    percent, decibel = panels(found)
    assert percent == (
        "%",
        {
            "error": [50],
            "knn": [25, 50],
            "knn, raw pixels": [12.5] * 2,
            "knn, random encoder": [6.25] * 2,
        },
    )
    assert decibel == ("dB", {"psnr": [20, 23.4], "psnr, random encoder": [5, 5]})
    (knn,) = [line for line in found.axes[1].lines if line.get_label() == "knn"]
    assert list(knn.get_xdata()) == [5, 12]  # the results are of the end


def test_of_a_run_from_before_declarations_nll_is_no_share(tmp_path):
    lines = [{"step": 5, "eval/nll": 1.5, "eval/knn": 0.5, "eval/val": 0.5}]
    found = curves.drawn(context(tmp_path, lines, {}, {}))
    assert panels(found) == [("%", {"knn": [50]}), ("nats", {"nll": [1.5]})]


def test_without_evaluations_there_is_the_loss_alone(tmp_path):
    figure = curves.make()
    (path,) = figure.draw(context(tmp_path, LINES[:2], {}, {}))
    assert path == tmp_path / figure.files[0] and figure.check(None) is None
    assert np.ptp(matplotlib.image.imread(path)) > 0
    assert panels(curves.drawn(context(tmp_path, LINES[:2], {}, {}))) == []
