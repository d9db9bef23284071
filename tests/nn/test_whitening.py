"""Whitening filters: what they do to the patches that they were made from, by an independent float64 computation."""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn.nn.whitening import patch_moments, whitening_filters


def smooth_images(n: int, c: int, h: int, w: int, seed: int = 0) -> np.ndarray:
    """Images whose neighbouring pixels and channels go together, as natural ones' do."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n, c, h + 2, w + 2))
    blurred = sum(noise[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)) / 3
    return (blurred + rng.standard_normal((n, 1, h, w)) + 0.3).astype(np.float32)


def responses(images: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """(K, patches): a valid cross-correlation by plain loops over the window, float64."""
    k, _, r, s = filters.shape
    n, _, h, w = images.shape
    out = np.zeros((n, k, h - r + 1, w - s + 1))
    for i in range(r):
        for j in range(s):
            part = images[:, :, i : h - r + 1 + i, j : w - s + 1 + j].astype(np.float64)
            out += np.einsum("nchw,kc->nkhw", part, filters[:, :, i, j])
    return out.transpose(1, 0, 2, 3).reshape(k, -1)


@pytest.mark.parametrize(("shape", "window"), [((40, 3, 9, 8), 2), ((30, 1, 7, 12), 3), ((50, 2, 5, 5), 1)])
def test_whitened_patches_are_uncorrelated_with_moment_one(shape: tuple[int, ...], window: int) -> None:
    images, eps = smooth_images(*shape), 1e-3
    filters = whitening_filters(images, window, eps)
    d = shape[1] * window * window
    assert filters.shape == (2 * d, shape[1], window, window)
    np.testing.assert_array_equal(filters[d:], -filters[:d])
    y = responses(images, filters[:d])
    moments = y @ y.T / y.shape[1]
    values = 1.0 / (filters[:d].reshape(d, -1) ** 2).sum(1) - eps  # a filter's length is 1 / sqrt(eigenvalue + eps)
    np.testing.assert_allclose(moments, np.diag(values / (values + eps)), atol=1e-11)
    assert np.all(np.diff(values) > 0)


def test_moments_are_the_mean_of_the_products_of_all_patches() -> None:
    images = smooth_images(3, 2, 4, 5)
    sums, count = np.zeros((8, 8)), 0
    for image in images.astype(np.float64):
        for i in range(3):
            for j in range(4):
                patch = image[:, i : i + 2, j : j + 2].ravel()
                sums += np.outer(patch, patch)
                count += 1
    np.testing.assert_allclose(patch_moments(images, 2), sums / count, rtol=1e-12)


def test_moments_in_many_blocks_are_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    images = smooth_images(11, 3, 6, 6)
    whole = patch_moments(images, 2)
    monkeypatch.setattr("gpucnn.nn.whitening.BLOCK", 60)  # two images
    np.testing.assert_allclose(patch_moments(images, 2), whole, rtol=1e-12)


def test_the_sign_that_lapack_chose_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    images = smooth_images(20, 3, 8, 8)
    expected, eigh = whitening_filters(images), np.linalg.eigh

    def mirrored(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = eigh(matrix)
        return values, vectors * np.where(np.arange(len(values)) % 3 == 0, -1.0, 1.0)

    monkeypatch.setattr(np.linalg, "eigh", mirrored)
    np.testing.assert_array_equal(whitening_filters(images), expected)
    for row in expected[:12].reshape(12, 12):
        assert row[np.abs(row) >= 0.5 * np.abs(row).max()][0] > 0


def test_images_without_contrast_give_finite_filters() -> None:
    filters = whitening_filters(np.ones((2, 3, 4, 4), np.float32))
    assert np.isfinite(filters).all() and np.abs(filters).max() <= 1 / np.sqrt(5e-4)


def test_an_eigenvalue_of_0_that_comes_out_a_little_below_it_gives_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of images whose channels are the same do, on some machines."""
    eigh = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: (eigh(matrix)[0] * 0.0 - 1e-17, eigh(matrix)[1]))
    filters = whitening_filters(smooth_images(2, 3, 4, 4), eps=1e-20)
    np.testing.assert_allclose((filters.reshape(24, 12) ** 2).sum(1), 1e20)  # vectors of length 1 over sqrt(eps)


@pytest.mark.parametrize("shape", [(3, 4, 4), (0, 3, 4, 4), (2, 3, 1, 4), (2, 3, 4, 1)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"whitening_filters: images must be \(N, C, H, W\) of at least 2 x 2 pixels"):
        whitening_filters(np.zeros(shape, np.float32))


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        whitening_filters(np.full((1, 3, 4, 4), np.nan, np.float32))
