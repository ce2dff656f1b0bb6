"""`mae-jax features`: writes the features of images to a file, for other programs."""

from pathlib import Path

import numpy as np

from mae_jax.checks import check_vocabulary
from mae_jax.models.encoder import Encoder
from mae_jax.ops.patches import grid_of
from mae_jax.predictions import tables
from mae_jax.run import Run
from mae_jax.types import TrainState, layer_output

VALID = "text_valid"
"""Field [N, T] of the tokens of texts."""


def write_features(
    run: Run, state: TrainState, out: Path, *, layer: int | None = None, pool: str = ""
) -> tuple[Path, int]:
    """Writes the features of every readable image of the training source: `features` [N, D] float32
    and `names`; and what the source has of `labels` [N] int32, `multilabels` [N, K] uint8, `values`
    [N] or [N, V] float32, `weights` [N] float32 and `groups` [N] int32, with the names of their
    classes as `class_names`, `multilabel_names`, `value_names` and `group_names`. Of volumes also
    their geometry, see `predictions.tables.geometry_of`, and `grid` [3], the patches along depth,
    height and width of the transformed volumes.

    Of methods of images and texts also the outputs of `Method.embeddings`, those of texts if the
    source has captions, and then `has_text` [N] bool: False for images without a caption.

    Args:
        out: path ending in .npz or .safetensors, whose metadata hold the names as JSON.
        layer, pool: features of a layer of the encoder, see `types.layer_output`.

    Returns:
        The path, and the number N of images.

    Raises:
        UserError: captions in another vocabulary, or of another length, than those of the run.
    """
    output, more = layer_output(layer, pool), embeddings_of(run)
    arrays, names = tables.predict_all(run, state, (output, *more))
    arrays["features"] = arrays[output]
    if more and VALID in arrays:
        more, arrays["has_text"] = (*more, "has_text"), arrays[VALID].any(axis=1)
    encoder = run.method.encoders().get("params/encoder") if "affine" in arrays else None
    if isinstance(encoder, Encoder):
        space = run.data.example("eval")["image"].shape[1:-1]
        arrays["grid"] = np.array(grid_of(space, encoder.patch))
    tables.write_features(out, arrays, names, run.data.source("train"), more)
    return out, len(names)


def embeddings_of(run: Run) -> tuple[str, ...]:
    """The outputs of `Method.embeddings` whose fields the data have."""
    if not (offered := run.method.embeddings()):
        return ()
    check_vocabulary(run.method, run.data)
    fields = {*run.data.example("eval")}
    return tuple(name for name in offered if fields.issuperset(run.method.reads((name,))))
