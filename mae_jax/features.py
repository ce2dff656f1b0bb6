"""`mae-jax features`: writes the features of images to a file, for other programs."""

import json
from pathlib import Path

import numpy as np

from mae_jax.run import Run
from mae_jax.types import TrainState, layer_output


def write_features(
    run: Run, state: TrainState, out: Path, *, layer: int | None = None, pool: str = ""
) -> tuple[Path, int]:
    """Writes the features of every readable image of the training source: `features` [N, D] float32
    and `names`; `labels` [N] int32 if the source has labels, and `class_names` if these have names.

    Args:
        out: path ending in .npz or .safetensors, whose metadata hold the names as JSON.
        layer, pool: features of a layer of the encoder, see `types.layer_output`.

    Returns:
        The path, and the number N of images.
    """
    output = layer_output(layer, pool)
    predict, source = run.predictor(state, (output,)), run.data.source("train")
    features, valid, labels = [], [], []
    for batch in run.data.eval("train"):
        outputs = predict(batch)
        valid.append(np.asarray(outputs["valid"]))
        features.append(np.asarray(outputs[output])[valid[-1]])
        if "label" in batch:
            labels.append(np.asarray(outputs["label"])[valid[-1]])
    arrays = {"features": np.concatenate(features)}
    if labels:
        arrays["labels"] = np.concatenate(labels)
    read_ones = np.flatnonzero(np.concatenate(valid))
    names = {"names": [source.name(int(index)) for index in read_ones]}
    if source.class_names:
        names["class_names"] = list(source.class_names)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        np.savez(out, **arrays, **{name: np.array(texts) for name, texts in names.items()})
    else:
        from safetensors.numpy import save_file

        metadata = {name: json.dumps(texts) for name, texts in names.items()}
        save_file(arrays, out, metadata=metadata)
    return out, len(read_ones)
