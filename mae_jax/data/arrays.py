"""The input pipeline in plain numpy and Pillow: no TensorFlow. Batches are made by a few threads,
each from its step alone.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mae_jax.data.order import Rows
from mae_jax.data.sources import Source
from mae_jax.data.transforms import Transform, draw
from mae_jax.types import UserError


def batches(
    source: Source,
    transforms: Sequence[Transform],
    rows_at: Callable[[int], Rows],
    steps: Iterator[int],
    workers: int,
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of these steps, in order, made ahead by `workers` threads.

    Args:
        source: examples.
        transforms: applied to each image.
        rows_at: step -> which examples, and their seeds.
        steps: which batches.
    """
    pending: deque = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for step in steps:
            pending.append(pool.submit(load, source, transforms, rows_at(step)))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def load(source: Source, transforms: Sequence[Transform], rows: Rows) -> dict[str, np.ndarray]:
    """One batch: 'image' [b, H, W, C] uint8 and 'label' [b] int32 if the source has labels.

    Raises:
        UserError: the images of the batch come in different sizes.
    """
    fields = source.read(rows.indices)
    images = list(fields["image"])
    for transform, params in zip(transforms, draw(transforms, rows.seeds), strict=True):
        images = [transform.on_array(*pair) for pair in zip(images, params, strict=True)]
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise UserError(
            f"images of different sizes in a batch, e.g. {shapes[0]} and {shapes[-1]}: "
            "end the transforms with random_resized_crop(...) or "
            "resize(...)|center_crop(...)"
        )
    batch = {"image": np.stack(images)}
    if "label" in fields:
        batch["label"] = np.asarray(fields["label"], np.int32)
    return batch
