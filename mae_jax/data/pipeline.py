"""The input pipeline in tf.data: the same examples, order, boxes and flips as `arrays`, with the
pixels moved by TensorFlow's own threads. The only module that imports TensorFlow.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from mae_jax.data.order import Rows
from mae_jax.data.sources import Arrays, Source
from mae_jax.data.transforms import Transform, draw
from mae_jax.types import UserError


def batches(
    source: Source,
    transforms: Sequence[Transform],
    rows_at: Callable[[int], Rows],
    steps: Iterator[int],
    workers: int,
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of these steps; see `arrays.batches`."""
    tf.config.set_visible_devices([], "GPU")  # accelerator memory belongs to JAX
    if not isinstance(source, Arrays):
        raise UserError("pipeline 'tf' reads sources in memory: use pipeline 'arrays' for this one")
    first = rows_at(0)
    fields = {k: tf.constant(v) for k, v in source.fields.items() if k in ("image", "label")}
    params = [
        tf.TensorSpec((None, *p.shape[1:]), tf.float64) for p in draw(transforms, first.seeds)
    ]

    def plans():
        for step in steps:
            rows = rows_at(step)
            yield rows.indices, tuple(draw(transforms, rows.seeds))

    def load(index, params):
        row = {name: tf.gather(values, index) for name, values in fields.items()}
        for transform, numbers in zip(transforms, params, strict=True):
            row["image"] = transform.on_tensor(tf, row["image"], numbers)
        return row

    signature = (tf.TensorSpec((None,), tf.int64), tuple(params))
    dataset = tf.data.Dataset.from_generator(plans, output_signature=signature).unbatch()
    dataset = dataset.map(load, num_parallel_calls=workers, deterministic=True)
    dataset = dataset.batch(len(first.indices), drop_remainder=True).prefetch(2)
    yield from dataset.as_numpy_iterator()
