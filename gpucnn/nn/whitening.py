"""Filters that whiten the patches of images, found from the images themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

BLOCK = 1 << 16  # patches whose products are summed at a time


def patch_moments(images: NDArray[Any], window: int) -> NDArray[np.float64]:
    """The mean of p p^T over all ``window`` x ``window`` patches p of ``images`` (N, C, H, W): (D, D), D = C * window *
    window in the order C, R, S.

    The patches' mean is not taken off. Summed in float64, block by block in the order of the images.
    """
    from gpucnn.backends.numpy.threads import single_blas_thread  # not with the package: it reads GPUCNN_THREADS

    windows = sliding_window_view(images, (window, window), axis=(2, 3))  # (N, C, P, Q, R, S)
    n, c, p, q, _, _ = windows.shape
    sums = np.zeros((c * window * window,) * 2)
    block = max(1, BLOCK // (p * q))
    with single_blas_thread:
        for first in range(0, n, block):
            part = windows[first : first + block].transpose(1, 4, 5, 0, 2, 3)
            patches = part.astype(np.float64, order="C").reshape(len(sums), -1)
            sums += patches @ patches.T
    return sums / (n * p * q)


def whitening_filters(images: NDArray[Any], window: int = 2, eps: float = 5e-4) -> NDArray[np.float64]:
    """Filters (2 D, C, window, window), D = C * window * window: the eigenvectors of the patches' second moments over
    sqrt(eigenvalue + eps), by ascending eigenvalue, and then the same with the other sign.

    ``images`` are (N, C, H, W), normalised. The first D responses have second moments eigenvalue / (eigenvalue + eps),
    and those of any two are uncorrelated. LAPACK leaves the sign of an eigenvector open; here the first of its entries
    that is at least half as large as the largest is positive. Raises ValueError for images of another shape, smaller
    than the window or none.

    Method: A. Coates, A. Ng, H. Lee, "An analysis of single-layer networks in unsupervised feature learning", 2011; as
    a fixed first layer: D. Page, "How to train your ResNet 8", 2019.
    """
    from gpucnn.backends.numpy.threads import single_blas_thread

    if images.ndim != 4 or min(images.shape[2:]) < window or not images.size:
        raise ValueError(
            f"whitening_filters: images must be (N, C, H, W) of at least {window} x {window} pixels,"
            f" got shape {images.shape}"
        )
    moments = patch_moments(images, window)
    if not np.isfinite(moments).all():
        raise ValueError("whitening_filters: the images must be finite")
    with single_blas_thread:
        values, vectors = np.linalg.eigh(moments)
    rows = vectors.T
    sizes = np.abs(rows)
    leading = np.argmax(sizes >= 0.5 * sizes.max(axis=1, keepdims=True), axis=1)
    signs = np.sign(rows[np.arange(len(rows)), leading])
    filters = rows * (signs / np.sqrt(np.maximum(values, 0.0) + eps))[:, None]
    return np.concatenate([filters, -filters]).reshape(-1, images.shape[1], window, window)
