"""Whitening of features: directions of small variance count as much as those of large variance."""

from collections.abc import Iterator

import numpy as np
from scipy.linalg import solve_triangular

CHUNK, RIDGE = 16384, 1e-2
"""Rows converted to float64 at once; share of the mean variance that is added to each variance."""


class Whitening:
    """Maps features to y = L^-1 (x - mean), with L L^T = covariance + ridge * identity.

    Cosine similarities of y equal those under the symmetric whitening, which is a rotation of this.
    The ridge is `RIDGE` times the mean variance, so that directions without variance, of which raw
    pixels have many, do not amplify noise.
    """

    def __init__(self, features: np.ndarray):
        """Fits mean and covariance of features [N, D]."""
        width = features.shape[1]
        self.mean = features.mean(axis=0, dtype=np.float64)  # [D]
        covariance = np.zeros((width, width))
        for rows in _chunks(features):
            centered = rows - self.mean  # [n, D] float64
            covariance += centered.T @ centered / len(features)
        ridge = RIDGE * np.trace(covariance) / width
        # The smallest positive number keeps features without any variance finite.
        covariance += (ridge + np.finfo(np.float32).tiny) * np.eye(width)
        self.factor = np.linalg.cholesky(covariance).astype(np.float32)  # [D, D], lower

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Whitened features [N, D] float32."""
        centered = ((rows - self.mean).astype(np.float32) for rows in _chunks(features))
        return np.concatenate([solve_triangular(self.factor, x.T, lower=True).T for x in centered])


def _chunks(features: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of features [N, D] as float64, a chunk at a time."""
    for start in range(0, len(features), CHUNK):
        yield features[start : start + CHUNK].astype(np.float64)
