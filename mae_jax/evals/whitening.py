"""Whitening of features: directions of small variance count as much as those of large variance."""

from collections.abc import Iterator

import numpy as np
from scipy.linalg import solve_triangular

from mae_jax.evals.span import basis_of

CHUNK, RIDGE = 2**26, 1e-2
"""Numbers converted to float64 at once; share of the mean variance that is added to variances."""


class Whitening:
    """Maps features to y = L^-1 (x - mean), with L L^T = covariance + ridge * identity.

    Cosine similarities of y equal those under the symmetric whitening, which is a rotation of this.
    If features are wider than there are training examples, those with training examples do.
    The ridge is `RIDGE` times the mean variance, so that directions without variance, of which raw
    pixels have many, do not amplify noise.
    """

    def __init__(self, features: np.ndarray):
        """Fits mean and covariance of features [N, D]."""
        width = features.shape[1]
        self.mean = features.mean(axis=0, dtype=np.float64)  # [D]
        self.basis = None  # [D, N], if features are wider than there are examples
        if width > len(features):
            self.basis = basis_of(features - self.mean)
        covariance = 0.0
        for rows in self._centered(features):  # [n, R] float64
            covariance += rows.T @ rows / len(features)
        # The smallest positive number keeps features without any variance finite.
        self.ridge = RIDGE * np.trace(covariance) / width + np.finfo(np.float32).tiny
        covariance += self.ridge * np.eye(len(covariance))
        self.factor = np.linalg.cholesky(covariance).astype(np.float32)  # [R, R], lower

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Whitened features [N, R] float32, where R is D, or the number of training examples plus
        one if D is larger.
        """
        rows = [
            solve_triangular(self.factor, x.T.astype(np.float32), lower=True).T
            for x in self._centered(features)
        ]
        return np.concatenate(rows)

    def _centered(self, features: np.ndarray) -> Iterator[np.ndarray]:
        """Chunks of rows, minus the mean, float64 [n, D]; or [n, N + 1] in the basis, and
        the length outside of it, where training examples have no variance.
        """
        count = max(CHUNK // features.shape[1], 1)
        for start in range(0, len(features), count):
            rows = features[start : start + count] - self.mean
            if self.basis is None:
                yield rows
                continue
            inside = rows @ self.basis
            outside = np.sum(rows**2, axis=1) - np.sum(inside**2, axis=1)
            yield np.column_stack([inside, np.sqrt(np.maximum(outside, 0))])
