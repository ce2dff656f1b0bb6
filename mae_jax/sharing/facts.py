"""What the workdir of a run, or a folder of imported weights, records about a model."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from mae_jax import weights
from mae_jax.config import differences
from mae_jax.engine.log import read
from mae_jax.json_files import read_json
from mae_jax.methods import make_method
from mae_jax.types import Method, UserError
from mae_jax.weights.model import Model
from mae_jax.workdir import (
    MAY_CHANGE,
    is_folder_of_weights,
    last_step,
    read_classes,
    read_config,
    read_results,
)

MADE = "train again in another --workdir, or remove it"
"""Way out for a damaged file."""
_OTHERS = ("reading", "vocabulary")  # fingerprints that are of no split


class Facts(NamedTuple):
    """The record of a model."""

    folder: Path
    config: ConfigDict
    model: Model
    method: Method
    imported: bool
    """It has been imported: the folder records no training."""
    step: int
    """Training steps of these weights; 0 for imported ones."""
    costs: Mapping[str, Any]
    """See `engine.costs`; {}: not recorded."""
    results: Mapping[str, Mapping[str, Any]]
    """Name of a file of results -> its content, see `workdir.read_results`."""
    classes: Mapping[str, list[str]]
    figures: list[Path]
    speed: float | None
    """Median of the logged examples/s; None: not recorded."""

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.absolute().name

    @property
    def counts(self) -> dict[str, tuple[int, str]]:
        """Split -> (number of its examples, digest of their list), as recorded."""
        recorded = dict(self.config.fingerprints) if "fingerprints" in self.config else {}
        split = {name: text.split() for name, text in recorded.items() if name not in _OTHERS}
        return {name: (int(words[0]), " ".join(words[1:])) for name, words in split.items()}

    @property
    def seen(self) -> int:
        """Number of training examples that were seen, with repetitions."""
        return self.step * self.config.data.batch_size

    @property
    def recipe(self) -> dict[str, Any]:
        """Path -> value of the config's values that determine the training."""
        values = {k: new for k, (_, new) in differences(ConfigDict(), self.config).items()}
        left = (*MAY_CHANGE, "fingerprints.", "data.test")
        return {
            k: v for k, v in values.items() if not k.startswith(left) and v not in (None, "", [])
        }


def read_facts(folder: Path) -> Facts:
    """Reads the record of a model; opens no data and no devices.

    Raises:
        UserError: neither a run with a checkpoint nor a folder of imported weights.
    """
    if not weights.is_run(folder):
        raise UserError(f"{folder} is not a run: convert it with mae-jax weights import")
    config, imported = read_config(folder), is_folder_of_weights(folder)
    step = 0 if imported else last_step(folder)
    if step is None:
        raise UserError(f"{folder} has no checkpoint yet")
    model, _ = weights.read(folder)
    costs, lines = folder / "costs.json", read(folder / "metrics.jsonl")
    speeds = [line["images_per_s"] for line in lines if "images_per_s" in line]
    # Of the weights at hand only; those of an earlier checkpoint would be another model's.
    found = {path.name: read_results(path) for path in sorted(folder.glob("results*.json"))}
    return Facts(
        folder=folder,
        config=config,
        model=model,
        method=make_method(name=model.method, args=model.args),
        imported=imported,
        step=step,
        costs=read_json(costs, MADE, lambda x: isinstance(x, dict)) if costs.is_file() else {},
        results={name: content for name, content in found.items() if content["step"] == step},
        classes=read_classes(folder),
        figures=sorted((folder / "figures").glob("*.png")),
        speed=statistics.median(speeds) if speeds else None,
    )
