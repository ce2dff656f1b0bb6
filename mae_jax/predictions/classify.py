"""Classes of images as a table: probabilities by the names of the classes, and the prediction."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mae_jax.evals.classes import softmax
from mae_jax.predictions import Writer
from mae_jax.predictions.tables import class_names, write_rows
from mae_jax.types import TrainState

READS = ("logits",)
OPTIONS = ()
RANK = None


def make() -> Writer:
    """Writes `predictions.csv` with the columns 'file', 'p_NAME' for each class, and 'prediction',
    the name of the most probable class; and `features.npz`.
    """
    return Writer(write=write, predicted=predicted)


def predicted(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """'probability' [N, K] float32 and 'prediction' [N] int of 'logits' [N, K]."""
    logits = outputs["logits"]
    return {
        "probability": softmax(logits).astype(np.float32),
        "prediction": logits.argmax(axis=1),
    }


def write(run, state: TrainState, out: Path, names: Mapping[str, Sequence[str]]) -> list[str]:
    """Writes the predictions for all images of the split 'train', see `Writer.write`."""
    classes = class_names(run, "label", names)

    def rows_of(outputs: Mapping[str, np.ndarray]):
        found = predicted(outputs)
        for probabilities, number in zip(found["probability"], found["prediction"], strict=True):
            yield (*probabilities, classes[number])

    header = (*(f"p_{name}" for name in classes), "prediction")
    return write_rows(run, state, out, READS, header, rows_of)
