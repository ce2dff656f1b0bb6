"""A writer: a CSV file with a row per value, for a spreadsheet."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mae_jax.types import Metric
from mae_jax.writers.writer import Session, Writer


class Table(Writer):
    """Appends to a file in the workdir. A service would be called here instead."""

    def __init__(self, file: str):
        self.file = file
        self.path: Path | None = None

    def start(self, session: Session) -> None:
        """Continues the file; what it has is not sent again."""
        self.path = session.workdir / self.file

    def scalars(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """Appends a row (step, name, value) for each value."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([step, name, value] for name, value in values.items())

    def image(self, step: int, name: str, pixels: np.ndarray, text: str, wall_time: float) -> None:
        """Leaves out pictures [H, W, 3] uint8: a table holds none."""

    def results(
        self,
        step: int,
        results: Mapping[str, Mapping[str, float]],
        metrics: Mapping[str, Metric],
        wall_time: float,
    ) -> None:
        """Appends the final results, as 'results/REPRESENTATION/METRIC'."""
        for representation, values in results.items():
            named = {f"results/{representation}/{name}": value for name, value in values.items()}
            self.scalars(step, named, wall_time)


def make(file: str = "values.csv") -> Table:
    """Makes the writer. In a config: log.writers='tensorboard|my_project.writer(file="values.csv")'

    Args:
        file: name of the file in the workdir.
    """
    return Table(file)
