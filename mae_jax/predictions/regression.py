"""Numbers that are predicted for images, as a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mae_jax.predictions import Writer
from mae_jax.predictions.tables import class_names, write_rows
from mae_jax.types import TrainState

READS = ("prediction",)
OPTIONS = ()
RANK = None


def make() -> Writer:
    """Writes `predictions.csv` with the columns 'file' and 'prediction', or 'prediction_NAME' for
    each of several values, in the units of the training set; and `features.npz`.
    """
    return Writer(write=write, predicted=predicted)


def predicted(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """'prediction' [N, V] float32, or [N] of one value."""
    values = outputs["prediction"]
    return {"prediction": values[:, 0] if values.shape[1] == 1 else values}


def write(run, state: TrainState, out: Path, names: Mapping[str, Sequence[str]]) -> list[str]:
    """Writes the predictions for all images of the split 'train', see `Writer.write`."""
    values = class_names(run, "value", names)
    header = [f"prediction_{name}" for name in values] if len(values) > 1 else ["prediction"]
    return write_rows(run, state, out, READS, header, lambda outputs: outputs["prediction"])
