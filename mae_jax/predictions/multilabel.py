"""Several classes per image as a table: a probability for each, and those of at least one half."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mae_jax.predictions import Writer
from mae_jax.predictions.tables import class_names, write_rows
from mae_jax.types import TrainState

READS = ("multilabel_logits",)
OPTIONS = ()
RANK = None


def make() -> Writer:
    """Writes `predictions.csv` with the columns 'file', 'p_NAME' for each class, and 'prediction',
    the names of the classes with a probability of at least one half, separated by semicolons; and
    `features.npz`.
    """
    return Writer(write=write, predicted=predicted)


def predicted(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """'probability' [N, K] float32 and 'prediction' [N, K] bool of 'multilabel_logits' [N, K]."""
    logits = outputs["multilabel_logits"].astype(np.float64)
    probability = np.exp(-np.logaddexp(0, -logits)).astype(np.float32)  # sigmoid
    return {"probability": probability, "prediction": logits >= 0}


def write(run, state: TrainState, out: Path, names: Mapping[str, Sequence[str]]) -> list[str]:
    """Writes the predictions for all images of the split 'train', see `Writer.write`."""
    classes = class_names(run, "labels", names)

    def rows_of(outputs: Mapping[str, np.ndarray]):
        found = predicted(outputs)
        for probabilities, present in zip(found["probability"], found["prediction"], strict=True):
            shown = [name for name, yes in zip(classes, present, strict=True) if yes]
            yield (*probabilities, ";".join(shown))

    header = (*(f"p_{name}" for name in classes), "prediction")
    return write_rows(run, state, out, READS, header, rows_of)
