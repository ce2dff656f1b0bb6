"""The `Writer` type, which every `make` of a writer returns, and what it knows of the run."""

import abc
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mae_jax.types import Metric


@dataclasses.dataclass(kw_only=True)
class Session:
    """A run as a writer starts on it, in the first process only."""

    workdir: Path
    start: int
    """Steps done so far."""
    config: Mapping[str, Any]
    """The config as nested dicts."""
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What the writer has noted of this run, such as its id at a service: JSON, kept in the
    workdir's writers.json. `start` may change it in place."""

    @property
    def name(self) -> str:
        """Name of the run at a service: the workdir as given, or its last part if absolute."""
        return self.workdir.name if self.workdir.is_absolute() else self.workdir.as_posix()


class Writer(abc.ABC):
    """Sends the values of one run to one service.

    A UserError that a function raises ends the run. Any other exception is reported once and
    counted, and the call is repeated later, see `delivery`.
    """

    replaces: ClassVar[bool] = False
    """Whether the service drops what an interrupted run has written for later steps than
    `Session.start`. False: each value is sent once, and those of repeated steps are left out."""

    def check(self) -> None:
        """Raises UserError if a package is missing. Called before data are opened; `make` must not
        need the package, as commands that only evaluate a run build its config, too.
        """
        return

    @abc.abstractmethod
    def start(self, session: Session) -> None:
        """Begins the run at the service, or continues it after an interruption."""

    @abc.abstractmethod
    def scalars(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """Sends named numbers after `step` steps.

        Args:
            wall_time: seconds since 1970.
        """

    @abc.abstractmethod
    def image(self, step: int, name: str, pixels: np.ndarray, text: str, wall_time: float) -> None:
        """Sends a picture.

        Args:
            pixels: [H, W, 3] uint8.
            text: caption in Markdown.
        """

    @abc.abstractmethod
    def results(
        self,
        step: int,
        results: Mapping[str, Mapping[str, float]],
        metrics: Mapping[str, Metric],
        wall_time: float,
    ) -> None:
        """Sends the final results.

        Args:
            results: representation -> metric -> value.
            metrics: metric -> its declaration.
        """

    def finish(self, *, failed: bool) -> None:
        """Ends the session.

        Args:
            failed: the run was interrupted or failed.
        """
        return
