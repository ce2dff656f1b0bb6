"""Features that are wider than there are examples, such as the voxels of volumes, in as many
numbers as there are examples.
"""

import numpy as np


def basis_of(features: np.ndarray) -> np.ndarray:
    """Orthonormal columns [D, N] whose span holds all rows of features [N, D] with D > N.

    In N numbers, products of training examples with each other and with any other example are those
    in D. A linear model with an isotropic penalty has its weights in this span, so its predictions
    are the same, too. Matrices of D x D, 4 GB for the voxels of 32 x 32 x 32, are not needed.
    """
    return np.linalg.qr(features.T)[0]


def narrowed(features: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training features [N, D] and others [M, D] as [N, R] and [M, R] with R at most N; see
    `basis_of`. They stay as they are if D is at most N.
    """
    if features.shape[1] <= len(features):
        return features, others
    basis = basis_of(features)
    return features @ basis, others @ basis
