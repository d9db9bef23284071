"""The tolerance rule of the project, in one place.

Elementwise: |y - y64| <= max(2 e, 4 eps S), where

* y64 is the reference by the formula in a wider format (float64 for float32, long double for float64);
* S is the same operator on absolute values, the scale to which the rounding errors of its sums are relative;
* eps is the machine epsilon of the dtype computed in (2**-23 for float32, 2**-52 for float64);
* e is the largest error, over all elements, of a plain computation at that dtype, here NumPy running the same formula.

A correct sum of n terms in another order can miss twice the plain computation's error (it does in one case of
eight), and one of few terms can have a plain computation that happens to be exact; the second term carries
those. The factors 2 and 4 are not to be moved to make a test pass; :mod:`tests.support.calibrate` says how they
were found, and can be run again.

What is stored in a half type is computed in float32 from inputs that are exactly its own, and rounded once at the end.
So float16 and bfloat16 are held to the float32 rule plus half a unit in the last place of the stored type, which is
what one rounding to nearest may take: a bound by arithmetic, with no factor to calibrate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray

from tests.support.reference import Reference

Array = NDArray[Any]

PLAIN_FACTOR = 2
EPS_FACTOR = 4
WIDER = {np.dtype(np.float32): np.float64, np.dtype(np.float64): np.longdouble}
HALF = ("float16", "bfloat16")


def rounding(values: Array, dtype: Any) -> Array:
    """The most that one rounding to the half type ``dtype`` moves values of that magnitude, elementwise."""
    info = ml_dtypes.finfo(dtype)
    return np.asarray(np.maximum(float(info.eps) / 2 * np.abs(values), float(info.smallest_subnormal) / 2))


def bound(expected: Array, scale: Array | None, plain: Array | None = None, dtype: DTypeLike = np.float32) -> Array:
    """The largest |y - expected| allowed, elementwise. Without ``plain`` the term 2 e is left out: stricter."""
    allowed = np.zeros(np.shape(expected)) if scale is None else EPS_FACTOR * np.finfo(dtype).eps * np.abs(scale)
    if plain is not None and np.size(expected):
        allowed = np.maximum(allowed, PLAIN_FACTOR * np.max(np.abs(plain.astype(expected.dtype) - expected)))
    return np.asarray(allowed)


def assert_close(
    actual: Any,
    expected: Array,
    scale: Array | None,
    plain: Array | None = None,
    dtype: DTypeLike | None = None,
    what: str = "result",
) -> None:
    """Fails, naming the worst element, where ``actual`` breaks the rule; ``dtype`` is that computed in, if another.

    Shapes must be equal, and the places of NaN and of the infinities too.
    """
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    if not expected.size:
        return
    finite = np.isfinite(expected)
    stored = actual.dtype
    if stored.name in HALF:
        actual = actual.astype(np.float32)
    np.testing.assert_array_equal(actual[~finite], expected[~finite].astype(actual.dtype), err_msg=what)
    error = np.where(finite, np.abs(actual.astype(expected.dtype) - np.where(finite, expected, 0)), 0)
    allowed = bound(expected, scale, plain, actual.dtype if dtype is None else dtype)
    if stored.name in HALF:
        allowed = allowed + rounding(np.where(finite, np.abs(expected), 0) + allowed, stored)
    if not (error <= allowed).all():  # also catches a NaN that should not be there
        excess = np.where(error <= allowed, 0, np.where(np.isnan(error), np.inf, error / np.maximum(allowed, 1e-300)))
        worst = np.unravel_index(np.argmax(excess), excess.shape)
        place = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{what}: {int((excess > 0).sum())} of {excess.size} elements are off; the worst, at {place}, "
            f"is {actual[worst]!r}, expected {expected[worst]!r}: "
            f"error {error[worst]:.3g}, allowed {allowed[worst]:.3g}"
        )


def check(actual: Any, operator: Callable[..., Reference], *arguments: Any, what: str | None = None) -> None:
    """Holds ``actual`` to a function of tests/support/reference.py that returns one :class:`Reference`.

    The reference is computed in the next wider format, and ``e`` by the same function at the dtype of
    ``actual``, or at float32 where that is a half type.
    """
    actual = np.asarray(actual)
    dtype = np.dtype(np.float32) if actual.dtype.name in HALF else actual.dtype
    expected = operator(*arguments, dtype=WIDER[dtype])
    plain = operator(*arguments, dtype=dtype)
    assert_close(actual, expected.value, expected.scale, plain.value, what=what or operator.__name__)
