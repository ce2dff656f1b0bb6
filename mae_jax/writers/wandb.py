"""Weights & Biases: one run there for each workdir, continued when the run here resumes.

Its own steps only grow, and repeated ones are dropped, so values carry the step as a metric.
"""

import importlib.util
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mae_jax.spec import check_choice
from mae_jax.tables import results_rows
from mae_jax.types import Metric, UserError
from mae_jax.writers.writer import Session, Writer

MODES = ("", "online", "offline")


class WandB(Writer):
    """A run of Weights & Biases; `make` documents the options."""

    def __init__(self, *, name: str, mode: str, **options: Any):
        check_choice("wandb: mode", mode, MODES)
        self.name, self.mode, self.options = name, mode, options
        self.run = None

    def check(self) -> None:
        """Raises UserError if the package is missing."""
        if importlib.util.find_spec("wandb") is None:
            raise UserError("config.log.writers: wandb is not installed: pip install wandb")

    def start(self, session: Session) -> None:
        """Begins the run, or continues the one whose id is in the notes.

        Raises:
            UserError: not logged in, or a workdir that is logged to another project.
        """
        import wandb

        given = {name: value for name, value in self.options.items() if value}
        where = [self.options["entity"], self.options["project"]]
        if session.notes.get("where", where) != where:
            raise UserError(
                f"config.log.writers: {session.workdir} is logged to the W&B project "
                f"{'/'.join(filter(None, session.notes['where']))}: name it again, or remove "
                "writers.json from the workdir to begin another run"
            )
        session.notes.setdefault("id", uuid.uuid4().hex[:8])
        session.notes["where"] = where
        try:
            self.run = wandb.init(
                id=session.notes["id"],
                name=self.name or session.name,
                config=dict(session.config),
                dir=str(session.workdir),
                resume=None if self.mode == "offline" else "allow",
                mode=self.mode or None,
                settings=wandb.Settings(console="off"),
                **given,
            )
        except wandb.errors.UsageError as error:
            line = " ".join(str(error).split()).rstrip(".")
            raise UserError(
                f"config.log.writers: W&B: {line}: run wandb login, or write wandb(mode=offline)"
            ) from error
        self.run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """Logs named numbers after `step` steps."""
        self.run.log({**values, "step": step})

    def image(self, step: int, name: str, pixels: np.ndarray, text: str, wall_time: float) -> None:
        """Logs a picture [H, W, 3] uint8."""
        import wandb

        self.run.log({name: wandb.Image(pixels, caption=text), "step": step})

    def results(
        self,
        step: int,
        results: Mapping[str, Mapping[str, float]],
        metrics: Mapping[str, Metric],
        wall_time: float,
    ) -> None:
        """Logs the final table, and each number as 'results/REPRESENTATION/METRIC' of the run."""
        import wandb

        (_, *columns), *rows = results_rows(results, metrics)
        table = wandb.Table(columns=["features", *columns], data=[list(row) for row in rows])
        self.run.log({"results": table, "step": step})
        for representation, values in results.items():
            for metric, value in values.items():
                self.run.summary[f"results/{representation}/{metric}"] = value

    def finish(self, *, failed: bool) -> None:
        """Waits until everything has been sent, and ends the run."""
        self.run.finish(exit_code=1 if failed else 0)


def make(
    project: str = "mae_jax",
    *,
    entity: str = "",
    name: str = "",
    group: str = "",
    tags: Sequence[str] = (),
    mode: str = "",
) -> WandB:
    """Makes the writer. Needs `pip install wandb`, and a login unless it is offline.

    Args:
        project: name of the project.
        entity: user or team; '': the default one of the login.
        name: name of the run; '': the workdir.
        group: group of the run; '': none.
        tags: tags of the run.
        mode: 'online', 'offline' (into the workdir's wandb/, for `wandb sync`; each start of the
            run makes a folder there, with the same id), or '': as the environment variable
            WANDB_MODE says, else online.
    """
    return WandB(project=project, entity=entity, name=name, group=group, tags=tags, mode=mode)
