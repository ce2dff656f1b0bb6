"""Outputs of a model for all examples of a source, and files that hold them: CSV, NumPy and
safetensors.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mae_jax.data.fields import OPTIONAL
from mae_jax.data.sources import Source
from mae_jax.paths import check_empty
from mae_jax.types import TrainState

STORED = {
    "label": ("labels", "class_names"),
    "labels": ("multilabels", "multilabel_names"),
    "value": ("values", "value_names"),
    "weight": ("weights", "weight_names"),
    "group": ("groups", "group_names"),
}
"""Field -> names of its array and of the names of its classes in a file of features."""
GEOMETRY = ("affine", "spacing", "shape")
"""Arrays of the geometry of volumes in a file of features, see `geometry_of`."""


def predict_all(
    run, state: TrainState, outputs: Sequence[str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Outputs and labels of every readable example of the split 'train', and the examples' names.

    Args:
        run, state, outputs: see `predict_readable`.

    Returns:
        Output, or field of `OPTIONAL` or of `geometry_of` that the data have -> [N, ...]; and N
        names.
    """
    arrays, read = predict_readable(run, state, outputs)
    source = run.data.source("train")
    return arrays | geometry_of(source, read), [source.name(int(index)) for index in read]


def predict_readable(
    run, state: TrainState, outputs: Sequence[str]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Outputs and labels of every readable example of the split 'train', and which these are.

    Args:
        run: a `mae_jax.run.Run`.
        state: its state.
        outputs: names of outputs of its method.

    Returns:
        Output, or field of `OPTIONAL` that the data have -> [N, ...]; and [N] int, indices of the
        examples in the source.
    """
    predict = run.predictor(state, outputs)
    parts: dict[str, list[np.ndarray]] = {}
    valid = []
    for batch in run.data.eval("train"):
        found = predict(batch)
        valid.append(np.asarray(found["valid"]))
        for name in (*outputs, *(field for field in OPTIONAL if field in batch)):
            parts.setdefault(name, []).append(np.asarray(found[name])[valid[-1]])
    arrays = {name: np.concatenate(rows) for name, rows in parts.items()}
    return arrays, np.flatnonzero(np.concatenate(valid))


def geometry_of(source: Source, indices: Sequence[int]) -> dict[str, np.ndarray]:
    """Where volumes are in space, before the transforms: 'affine' [N, 4, 4] float64, which maps a
    voxel (d, h, w) to (x, y, z) in mm, RAS+; 'spacing' [N, 3] float64 in mm and 'shape' [N, 3]
    along depth, height and width. {} if a source does not know it.
    """
    found = [source.geometry(int(index)) for index in indices]
    if not found or any(geometry is None for geometry in found):
        return {}
    return {
        "affine": np.stack([geometry.affine_of_read for geometry in found]),
        "spacing": np.array([geometry.spacing for geometry in found]),
        "shape": np.array([geometry.space for geometry in found]),
    }


def write_features(
    out: Path,
    arrays: Mapping[str, np.ndarray],
    names: Sequence[str],
    source: Source,
    more: Sequence[str] = (),
) -> None:
    """Writes features with the labels of their images.

    Args:
        out: path ending in .npz or .safetensors, whose metadata hold the names as JSON.
        arrays: 'features' [N, D], those of `more`, and what there is of STORED, of GEOMETRY and
            'grid', the patches along each axis; others are left out.
        names: of the images.
        source: of the images, which has the names of classes and groups.
        more: further arrays to write.
    """
    classes = {**source.names, "group": source.group_names}
    known = {field: stored for field, stored in STORED.items() if field in arrays}
    content = {name: arrays[name] for name in ("features", *more)}
    content |= {array: arrays[field] for field, (array, _) in known.items()}
    content |= {name: arrays[name] for name in (*GEOMETRY, "grid") if name in arrays}
    texts = {"names": list(names)}
    texts |= {
        key: list(classes[field])
        for field, (_, key) in known.items()
        if len(classes.get(field, ()))
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        np.savez(out, **content, **{name: np.array(values) for name, values in texts.items()})
        return
    from safetensors.numpy import save_file

    save_file(content, out, metadata={name: json.dumps(values) for name, values in texts.items()})


def write_rows(
    run,
    state: TrainState,
    out: Path,
    outputs: Sequence[str],
    header: Sequence[str],
    rows_of,
) -> list[str]:
    """Writes `predictions.csv`, a row for each image, and `features.npz`.

    Args:
        run, state: see `predict_all`.
        out: folder to create.
        outputs: outputs to read, besides 'features' if the method has it.
        header: names of the columns after 'file'.
        rows_of: (output -> [N, ...]) -> N rows of values.

    Returns:
        A line about what was written.

    Raises:
        UserError: the folder has files already.
    """
    check_empty(out, "--out")
    features = ("features",) if "features" in run.method.offers() else ()
    arrays, names = predict_all(run, state, (*features, *outputs))
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "predictions.csv", ("file", *header), names, rows_of(arrays))
    if features:
        write_features(out / "features.npz", arrays, names, run.data.source("train"))
    files = " and ".join(("predictions.csv", *("features.npz" for _ in features)))
    return [f"{out}: {files} of {len(names)} images"]


def write_csv(
    path: Path, header: Sequence[str], names: Sequence[str], rows: Iterable[Sequence]
) -> None:
    """Writes a CSV in UTF-8: numbers with the fewest digits that restore their float32."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for name, row in zip(names, rows, strict=True):
            writer.writerow([name, *(x if isinstance(x, str) else str(np.float32(x)) for x in row)])


def class_names(run, field: str, names: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Names of the classes that a run has learned, or their numbers."""
    return names.get(field) or [str(number) for number in range(run.method.labels()[field])]
