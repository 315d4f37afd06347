"""Distances between two sets of feature vectors: FID and FVD (Fréchet), KID (kernel)."""

from __future__ import annotations

import numpy as np

from ex4d.errors import InputError


def check_features(a: np.ndarray, b: np.ndarray) -> None:
    """Raise InputError unless both are [n, d] with one d and at least two rows."""
    for x in (a, b):
        if x.ndim != 2 or len(x) < 2:
            raise InputError(f"features of shape {x.shape}", "[n, d] with n of 2 or more", "score more clips")
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"features of {a.shape[1]} and {b.shape[1]} numbers",
            "one feature network",
            "compute both with the same file",
        )


def frechet_of_moments(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """Squared Fréchet distance of two Gaussians: |ma - mb|^2 + tr(A + B - 2 (A B)^(1/2)).

    The root's trace is that of the symmetric (A^(1/2) B A^(1/2))^(1/2), by two symmetric eigenvalue problems: no complex
    numbers and no loss when a covariance is singular, unlike a general matrix root.
    """
    values, vectors = np.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    inner = root_a @ cov_b @ root_a
    root = np.sqrt(np.clip(np.linalg.eigvalsh((inner + inner.T) / 2), 0, None)).sum()
    difference = mean_a - mean_b
    return float(max(difference @ difference + np.trace(cov_a) + np.trace(cov_b) - 2 * root, 0.0))


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """FID (picture features) or FVD (clip features) of [n, d] and [m, d]: covariances with n - 1, float64."""
    check_features(a, b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    return frechet_of_moments(a.mean(0), cov_a, b.mean(0), cov_b)


def kernel_distance(
    a: np.ndarray, b: np.ndarray, subset: int = 1000, subsets: int = 100, seed: int = 0
) -> tuple[float, float]:
    """KID: mean and standard deviation over random subsets of the unbiased MMD^2 with the kernel (x.y / d + 1)^3.

    Sets smaller than `subset` are used whole, once.
    """
    check_features(a, b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    size = min(subset, len(a), len(b))
    if size == len(a) == len(b):
        return _mmd2(a, b), 0.0
    rng = np.random.Generator(np.random.PCG64(seed))
    values = [
        _mmd2(a[rng.choice(len(a), size, replace=False)], b[rng.choice(len(b), size, replace=False)])
        for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values))


def _mmd2(a: np.ndarray, b: np.ndarray) -> float:
    m, d = a.shape
    xx, yy, xy = ((x @ y.T / d + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    off = m * (m - 1)
    return float((xx.sum() - np.trace(xx)) / off + (yy.sum() - np.trace(yy)) / off - 2 * xy.mean())
