"""The options of `make_data`: checks that need no data, and pipelines by name."""

import importlib.util
from collections.abc import Callable, Sequence

from mae_jax.data import arrays
from mae_jax.data.loader import ON_ERROR
from mae_jax.data.sampling import SAMPLINGS
from mae_jax.spec import check_choice
from mae_jax.types import UserError

PIPELINES = ("arrays", "tf")
MAX_WORKERS = 1024


def repeats_note(repeats: int) -> list[str]:
    """A line about `data.repeats` to report at the start of a run; none if it is 1."""
    line = (
        f"config.data.repeats={repeats}: {repeats} crops of each image that is decoded; an epoch "
        f"of the schedule decodes 1/{repeats} of the images"
    )
    return [line] if repeats > 1 else []


def check_options(
    pipeline: str,
    on_error: str,
    batch_size: int,
    process_count: int,
    views: int,
    repeats: int,
    workers: int,
    sampling: str,
    fields: Sequence[str],
) -> None:
    """Raises UserError if an option of `make_data` is invalid."""
    check_choice("pipeline", pipeline, PIPELINES)
    if pipeline == "tf" and importlib.util.find_spec("tensorflow") is None:
        raise UserError("pipeline 'tf' needs TensorFlow: install tensorflow-cpu, or use 'arrays'")
    check_choice("on_error", on_error, ON_ERROR)
    if sampling:
        check_choice("sampling", sampling, SAMPLINGS)
    if sampling == "weighted" and "weight" in fields:
        raise UserError(
            "sampling='weighted' with the field 'weight' would count the weights twice: leave "
            "'weight' out of config.data.fields, or set config.data.sampling=''"
        )
    if batch_size < 1 or batch_size % process_count:
        raise UserError(f"batch_size {batch_size} does not split over {process_count} processes")
    if views not in (1, 2):
        raise UserError(f"views {views}: give 1, or 2 for methods that compare two views")
    if repeats < 1 or batch_size // process_count % repeats:
        raise UserError(
            f"repeats={repeats} must be at least 1, and divide the {batch_size // process_count} "
            f"rows of each of {process_count} process(es), as one reads all copies of an image"
        )
    if repeats > 1 and views > 1:
        raise UserError(
            f"repeats={repeats} with views={views}: copies of an image would be compared as if "
            "they were of others: set one of them to 1"
        )
    if not 0 <= workers <= MAX_WORKERS:
        raise UserError(
            f"workers {workers}: give up to {MAX_WORKERS} threads, or 0 for one per core"
        )


def batches_of(pipeline: str) -> Callable:
    """The function `batches` of a pipeline, one of `PIPELINES`; see `arrays.batches`."""
    if pipeline == "arrays":
        return arrays.batches
    from mae_jax.data import pipeline as tf

    return tf.batches
