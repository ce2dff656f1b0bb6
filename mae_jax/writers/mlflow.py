"""MLflow: one run there for each workdir, continued when the run here resumes."""

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mae_jax.spec import check_choice
from mae_jax.tables import markdown, results_rows
from mae_jax.types import Metric, UserError
from mae_jax.writers.writer import Session, Writer

MODES = ("", "online", "offline")
LONGEST = 500
"""Largest number of characters of a parameter; older servers refuse longer ones."""
BATCH = 100
"""Largest number of parameters of one call."""


class MLflow(Writer):
    """A run of MLflow; `make` documents the options."""

    def __init__(self, *, experiment: str, uri: str, name: str, mode: str):
        check_choice("mlflow: mode", mode, MODES)
        if uri and mode == "offline":
            raise UserError(f"mlflow: uri={uri!r} and mode=offline exclude each other: choose one")
        self.experiment, self.uri, self.name, self.mode = experiment, uri, name, mode

    def check(self) -> None:
        """Raises UserError if the package is missing."""
        if importlib.util.find_spec("mlflow") is None:
            raise UserError("config.log.writers: mlflow is not installed: pip install mlflow")

    def start(self, session: Session) -> None:
        """Begins the run, or continues the one whose id is in the notes.

        Raises:
            UserError: a workdir that is logged to another server or experiment.
        """
        import mlflow

        local = f"sqlite:///{session.workdir.absolute() / 'mlflow.db'}"
        uri = local if self.mode == "offline" else self.uri or mlflow.get_tracking_uri()
        where = [uri, self.experiment]
        if session.notes.get("where", where) != where:
            raise UserError(
                f"config.log.writers: {session.workdir} is logged to the MLflow experiment "
                f"{session.notes['where'][1]} at {session.notes['where'][0]}: name it again, or "
                "remove writers.json from the workdir to begin another run"
            )
        self.client = mlflow.MlflowClient(tracking_uri=uri)
        self.metric = mlflow.entities.Metric
        if "id" not in session.notes:
            found = self.client.get_experiment_by_name(self.experiment)
            files = (session.workdir / "mlruns").absolute().as_uri() if uri == local else None
            number = (
                found.experiment_id
                if found is not None
                else self.client.create_experiment(self.experiment, artifact_location=files)
            )
            run = self.client.create_run(number, run_name=self.name or session.name)
            session.notes |= dict(id=run.info.run_id, where=where)
        self.id = session.notes["id"]
        self.client.update_run(self.id, status="RUNNING")
        self._send_config(session.config, mlflow.entities.Param)

    def _send_config(self, config: Mapping[str, Any], param: type) -> None:
        """Logs the config as a file, and its values as parameters, of which none can change."""
        self.client.log_dict(self.id, dict(config), "config.json")
        known = self.client.get_run(self.id).data.params
        values = {path: value for path, value in _flat(config) if path not in known}
        params = [param(path, value[:LONGEST]) for path, value in values.items()]
        for first in range(0, len(params), BATCH):
            self.client.log_batch(self.id, params=params[first : first + BATCH])

    def scalars(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """Logs named numbers after `step` steps."""
        when = round(wall_time * 1000)
        metrics = [self.metric(_named(k), float(v), when, step) for k, v in values.items()]
        self.client.log_batch(self.id, metrics=metrics)

    def image(self, step: int, name: str, pixels: np.ndarray, text: str, wall_time: float) -> None:
        """Logs a picture [H, W, 3] uint8. The caption is a file beside."""
        self.client.log_image(self.id, pixels, key=name, step=step)
        self.client.log_text(self.id, text, f"{name}.md")

    def results(
        self,
        step: int,
        results: Mapping[str, Mapping[str, float]],
        metrics: Mapping[str, Metric],
        wall_time: float,
    ) -> None:
        """Logs the final table as files, and each number as 'results/REPRESENTATION/METRIC'."""
        self.client.log_text(self.id, markdown(results_rows(results, metrics)), "results.md")
        self.client.log_dict(self.id, json.loads(json.dumps(results)), "results.json")
        numbers = {
            f"results/{representation}/{metric}": value
            for representation, values in results.items()
            for metric, value in values.items()
        }
        self.scalars(step, numbers, wall_time)

    def finish(self, *, failed: bool) -> None:
        """Ends the run."""
        self.client.set_terminated(self.id, "FAILED" if failed else "FINISHED")


def _named(name: str) -> str:
    """A name with the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /]", "_", name)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(path, text) of every value of a nested config."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, str(value)


def make(experiment: str = "mae_jax", *, uri: str = "", name: str = "", mode: str = "") -> MLflow:
    """Makes the writer. Needs `pip install mlflow`.

    Args:
        experiment: name of the experiment; created if missing.
        uri: the tracking server or store, e.g. 'http://localhost:5000'; '': as MLflow's
            environment variable MLFLOW_TRACKING_URI says, else its default.
        name: name of the run; '': the workdir.
        mode: 'offline': into mlflow.db and mlruns/ in the workdir; '' or 'online': to `uri`.
    """
    return MLflow(experiment=experiment, uri=uri, name=name, mode=mode)
