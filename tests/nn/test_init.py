"""Initial values: bounds, moments and the same numbers from the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import gpucnn
from gpucnn.nn import init
from gpucnn.random import Generator

N = 200 * 300


def drawn(
    function: Callable[..., object], *args: object, shape: tuple[int, ...] = (200, 300), **options: object
) -> np.ndarray:
    tensor = gpucnn.empty(*shape, device="cpu")
    assert function(tensor, *args, generator=Generator(11), **options) is tensor
    return tensor.numpy().astype(np.float64)


def check_moments(values: np.ndarray, mean: float, variance: float, kurtosis: float) -> None:
    """Mean and variance within five standard errors; ``kurtosis`` is the fourth moment over the variance squared."""
    assert abs(values.mean() - mean) < 5 * math.sqrt(variance / values.size)
    assert abs(values.var() / variance - 1) < 5 * math.sqrt((kurtosis - 1) / values.size)


@pytest.mark.parametrize(
    ("function", "bound"),
    [
        (lambda t, generator: init.uniform_(t, -0.3, 0.3, generator), 0.3),
        (lambda t, generator: init.kaiming_uniform_(t, generator=generator), math.sqrt(6 / 300)),
        (lambda t, generator: init.kaiming_uniform_(t, a=math.sqrt(5), generator=generator), 1 / math.sqrt(300)),
        (
            lambda t, generator: init.kaiming_uniform_(t, mode="fan_out", nonlinearity="linear", generator=generator),
            math.sqrt(3 / 200),
        ),
        (lambda t, generator: init.xavier_uniform_(t, gain=2.0, generator=generator), 2 * math.sqrt(6 / 500)),
    ],
)
def test_uniform_initialisers(function: Callable[..., object], bound: float) -> None:
    values = drawn(function)
    assert bound * 0.999 < np.abs(values).max() <= bound * (1 + 1e-6)
    check_moments(values, 0.0, bound**2 / 3, 1.8)


@pytest.mark.parametrize(
    ("function", "mean", "std"),
    [
        (lambda t, generator: init.normal_(t, 3.0, 0.5, generator), 3.0, 0.5),
        (
            lambda t, generator: init.kaiming_normal_(t, nonlinearity="relu", generator=generator),
            0.0,
            math.sqrt(2 / 300),
        ),
        (
            lambda t, generator: init.kaiming_normal_(t, mode="fan_out", nonlinearity="tanh", generator=generator),
            0,
            5 / 3 / math.sqrt(200),
        ),
        (lambda t, generator: init.xavier_normal_(t, generator=generator), 0.0, math.sqrt(2 / 500)),
    ],
)
def test_normal_initialisers(function: Callable[..., object], mean: float, std: float) -> None:
    values = drawn(function)
    check_moments(values, mean, std**2, 3.0)
    assert 3.5 * std < np.abs(values - mean).max() < 6.5 * std


def truncated_moments(low: float, high: float) -> tuple[float, float, float]:
    """Mean, variance and kurtosis of a standard normal cut to [low, high], by numerical integration."""
    x = np.linspace(low, high, 200001)
    density = np.exp(-x * x / 2)
    density /= density.sum()
    mean = (density * x).sum()
    variance = (density * (x - mean) ** 2).sum()
    return mean, variance, (density * (x - mean) ** 4).sum() / variance**2


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"),
    [(0.0, 0.05, -0.1, 0.1), (1.0, 2.0, 0.0, 1.5), (0.0, 1.0, 3.0, 9.0), (0.0, 1.0, -20.0, -6.0), (2.0, 1.0, 1.9, 2.1)],
)
def test_truncated_normal_keeps_to_its_bounds(mean: float, std: float, a: float, b: float) -> None:
    values = drawn(init.trunc_normal_, mean, std, a, b, shape=(100, 100))
    assert a * (1 - np.sign(a) * 1e-6) <= values.min() and values.max() <= b * (1 + np.sign(b) * 1e-6)
    unit_mean, unit_variance, kurtosis = truncated_moments((a - mean) / std, min((b - mean) / std, 60.0))
    check_moments(values, mean + std * unit_mean, std**2 * unit_variance, kurtosis)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (6, 6), (4, 3, 3, 2), (20, 2, 1, 3), (1, 4), (4, 1), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_orthogonal_matrices(shape: tuple[int, ...], dtype: type) -> None:
    tensor = gpucnn.empty(*shape, device="cpu", dtype=dtype)
    assert init.orthogonal_(tensor, 3.0, Generator(2)) is tensor
    matrix = tensor.numpy().astype(np.float64).reshape(shape[0], -1)
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    # An entry of the product sums at most len(row) rounded products of a row of length 3 with itself.
    np.testing.assert_allclose(wide @ wide.T, 9.0 * np.eye(len(wide)), atol=9 * 4 * np.finfo(dtype).eps)


def test_an_orthogonal_matrix_does_not_depend_on_the_threads_of_blas() -> None:
    from threadpoolctl import threadpool_limits

    drawn = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            drawn.append(init.orthogonal_(gpucnn.empty(350, 300, device="cpu", dtype=np.float64), 1.0, Generator(3)))
    np.testing.assert_array_equal(drawn[0].numpy(), drawn[1].numpy())


def test_all_orthogonal_matrices_are_equally_likely() -> None:
    """Of 2 x 2 ones half are turns and half mirrors, at any angle; without the choice of signs it is not so."""
    drawn = [init.orthogonal_(gpucnn.empty(2, 2, device="cpu"), generator=Generator(i)).numpy() for i in range(400)]
    turns = sum(np.linalg.det(matrix) > 0 for matrix in drawn)
    angles = np.sort([math.atan2(matrix[1, 0], matrix[0, 0]) for matrix in drawn])
    assert abs(turns - 200) < 5 * math.sqrt(400) / 2
    even = (angles + math.pi) / (2 * math.pi)
    assert np.abs(even - np.arange(400) / 400).max() < math.sqrt(-math.log(1e-6 / 2) / 2 / 400)  # Kolmogorov, Smirnov


@pytest.mark.parametrize(
    ("shape", "groups"), [((4, 4, 3, 3), 1), ((6, 2, 3, 2), 1), ((2, 6, 5, 1), 1), ((6, 2, 3, 3), 3)]
)
def test_dirac_filters_pass_their_input_on(shape: tuple[int, ...], groups: int) -> None:
    weight = init.dirac_(init.ones_(gpucnn.empty(*shape, device="cpu")), groups)
    x = gpucnn.randn(2, shape[1] * groups, 6, 7, device="cpu")
    pad = tuple((size // 2, size - 1 - size // 2) for size in shape[2:])
    y = gpucnn.functional.conv2d(x, weight, padding=pad, groups=groups).numpy()
    each, passed = shape[0] // groups, min(shape[0] // groups, shape[1])
    for group in range(groups):
        own = y[:, group * each : (group + 1) * each]
        np.testing.assert_array_equal(own[:, :passed], x.numpy()[:, group * shape[1] : group * shape[1] + passed])
        assert not own[:, passed:].any()


def test_dirac_on_a_part_of_the_filters_leaves_the_others() -> None:
    layer = gpucnn.nn.Conv2d(2, 5, 3, device="cpu")
    before = layer.weight.numpy()
    init.dirac_(layer.filters()[:2])
    after = layer.weight.numpy()
    assert np.array_equal(before[2:], after[2:]) and after[:2].sum() == 2.0 and after[0, 0, 1, 1] == 1.0


def test_constants() -> None:
    tensor = gpucnn.empty(2, 3, device="cpu")
    assert init.constant_(tensor, 2.5).numpy().tolist() == [[2.5] * 3] * 2
    assert not init.zeros_(tensor).numpy().any() and init.ones_(tensor).numpy().all()
    assert init.trunc_normal_(tensor, 1.0, 0.0).numpy().tolist() == [[1.0] * 3] * 2


def test_filters_are_drawn_in_the_order_of_their_shape() -> None:
    """Four axes lie in memory as N, H, W, C; the numbers must not depend on it."""
    filters = gpucnn.empty(4, 3, 2, 5, device="cpu")
    flat = gpucnn.empty(4 * 3 * 2 * 5, device="cpu")
    init.uniform_(filters, generator=Generator(1))
    init.uniform_(flat, generator=Generator(1))
    assert np.array_equal(filters.numpy().ravel(), flat.numpy())
    assert filters.data.transpose(0, 2, 3, 1).flags.c_contiguous


def test_the_global_stream_is_the_default() -> None:
    tensor = gpucnn.empty(5, device="cpu")
    gpucnn.manual_seed(8)
    first, second = init.normal_(tensor).numpy(), init.normal_(tensor).numpy()
    gpucnn.manual_seed(8)
    assert np.array_equal(init.normal_(tensor).numpy(), first) and not np.array_equal(first, second)


def test_parameters_are_filled_off_the_tape() -> None:
    parameter = gpucnn.nn.Parameter(gpucnn.zeros(3, 4, device="cpu"))
    init.kaiming_normal_(parameter)
    assert parameter.is_leaf and parameter.requires_grad and parameter.numpy().all()


def test_fans_of_filters() -> None:
    assert init.fans(gpucnn.empty(6, 4, 3, 5, device="cpu")) == (60, 90)
    with pytest.raises(ValueError, match=r"at least two axes, got shape \(3,\)"):
        init.kaiming_uniform_(gpucnn.empty(3, device="cpu"))


def test_gains() -> None:
    assert init.calculate_gain("relu") == math.sqrt(2.0)
    assert init.calculate_gain("leaky_relu", 1.0) == 1.0
    with pytest.raises(ValueError, match="'mish' is unknown; known are leaky_relu"):
        init.calculate_gain("mish")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: init.uniform_(t, 1.0, 0.0), "uniform_: a must not be above b"),
        (lambda t: init.normal_(t, std=-1.0), "normal_: std must be finite and not negative, got -1.0"),
        (lambda t: init.trunc_normal_(t, a=2.0, b=2.0), "trunc_normal_: a must be below b"),
        (lambda t: init.kaiming_normal_(t, mode="fan"), "kaiming_normal_: mode must be"),
        (lambda t: init.orthogonal_(t[0]), r"orthogonal_: the tensor must have at least two axes, got shape \(2,\)"),
        (lambda t: init.dirac_(t), r"dirac_: the tensor must have 3, 4 or 5 axes, got shape \(2, 2\)"),
        (
            lambda t: init.dirac_(t.reshape(2, 2, 1), 3),
            "dirac_: the 2 output channels must be divisible by groups, got",
        ),
    ],
)
def test_wrong_arguments(call: Callable[[gpucnn.Tensor], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(gpucnn.empty(2, 2, device="cpu"))
