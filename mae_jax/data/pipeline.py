"""The input pipeline in tf.data: bit for bit the batches of `arrays`, scheduled by TensorFlow. Only
this module, sources.tfds and prepare use TensorFlow.
"""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from mae_jax.data.arrays import chunk_size
from mae_jax.data.loader import Loader
from mae_jax.data.order import Rows


def batches(
    loader: Loader, rows_at: Callable[[int], Rows], steps: Iterator[int], workers: int
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of these steps; see `arrays.batches`."""
    tf.config.set_visible_devices([], "GPU")  # accelerator memory belongs to JAX
    names = list(loader.buffers(0))
    types = [tf.as_dtype(values.dtype) for values in loader.buffers(0).values()]
    size, repeats = len(rows_at(0).indices), rows_at(0).repeats
    count = -(-size // chunk_size(repeats))
    chunk = -(-size // (count * repeats)) * repeats
    extra = count * chunk - size  # padding rows that make all chunks the same length
    failures: list[Exception] = []  # the original exceptions: TensorFlow keeps only their text

    def chunks():
        for step in steps:
            rows = rows_at(step)[:2]
            indices, seeds = (np.append(row, np.repeat(row[-1:], extra)) for row in rows)
            for first in range(0, size, chunk):
                yield indices[first : first + chunk], seeds[first : first + chunk]

    def load(indices, seeds):
        try:
            out = loader.buffers(chunk)
            loader.load(Rows(indices, seeds, repeats), out)
            return list(out.values())
        except Exception as error:
            failures.append(error)
            raise

    signature = tf.TensorSpec((chunk,), tf.int64), tf.TensorSpec((chunk,), tf.uint64)
    dataset = tf.data.Dataset.from_generator(chunks, output_signature=signature)
    dataset = dataset.map(
        lambda *rows: tf.numpy_function(load, rows, types),
        num_parallel_calls=workers,
        deterministic=True,
    )
    dataset = dataset.batch(count, drop_remainder=True).prefetch(2)
    try:
        for values in dataset.as_numpy_iterator():
            yield {
                name: value.reshape(count * chunk, *value.shape[2:])[:size]
                for name, value in zip(names, values)
            }
    except tf.errors.OpError:
        if failures:
            raise failures[0] from None
        raise
