"""The input pipeline in tf.data: the same examples, order, boxes and flips as `arrays`, with the
pixels moved by TensorFlow's own threads. The only module that imports TensorFlow.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from mae_jax.data import arrays
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
    # One example says what is wrong with the transforms: in memory all have the same size.
    arrays.load(source, transforms, Rows(first.indices[:1], first.seeds[:1]))
    fields = {k: tf.constant(v) for k, v in source.fields.items() if k in ("image", "label")}

    def plan(rows):
        """Indices, and the parameters of random transforms: `unbatch` crashes on empty rows."""
        drawn = zip(transforms, draw(transforms, rows.seeds), strict=True)
        return rows.indices, tuple(params for transform, params in drawn if transform.draws)

    def load(index, params):
        row = {name: tf.gather(values, index) for name, values in fields.items()}
        params = iter(params)
        for transform in transforms:
            numbers = next(params) if transform.draws else None
            row["image"] = transform.on_tensor(tf, row["image"], numbers)
        return row

    plans = lambda: (plan(rows_at(step)) for step in steps)
    signature = (
        tf.TensorSpec((None,), tf.int64),
        tuple(tf.TensorSpec((None, *p.shape[1:]), tf.float64) for p in plan(first)[1]),
    )
    dataset = tf.data.Dataset.from_generator(plans, output_signature=signature).unbatch()
    dataset = dataset.map(load, num_parallel_calls=workers, deterministic=True)
    dataset = dataset.batch(len(first.indices), drop_remainder=True).prefetch(2)
    yield from dataset.as_numpy_iterator()
