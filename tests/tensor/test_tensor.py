"""Tensors as values: making, reading, comparing, changing in place, exchanging with other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import Tensor

DEVICES = ["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_python_numbers_take_pytorchs_dtypes() -> None:
    assert gpucnn.tensor([1.0, 2.0], device="cpu").dtype == np.float32
    assert gpucnn.tensor([1, 2], device="cpu").dtype == np.int64
    assert gpucnn.tensor([True], device="cpu").dtype == np.bool_
    assert gpucnn.tensor(np.zeros(2), device="cpu").dtype == np.float64
    assert gpucnn.full((2,), 3, device="cpu").dtype == np.int64
    assert gpucnn.full((2,), 3.0, device="cpu").dtype == np.float32


def test_tensor_copies_its_input(device: str) -> None:
    source = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    x = gpucnn.tensor(source, device=device)
    source[:] = -1
    np.testing.assert_array_equal(x.numpy(), np.arange(6.0).reshape(2, 3))
    copy = x.numpy()
    copy[:] = -2
    np.testing.assert_array_equal(x.numpy(), np.arange(6.0).reshape(2, 3))


def test_four_axes_are_channels_last_in_memory_and_channels_second_outside(device: str) -> None:
    source = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    for x in (
        gpucnn.tensor(source, device=device),
        gpucnn.zeros(2, 3, 4, 5, device=device),
        gpucnn.randn(2, 3, 4, 5, device=device),
    ):
        assert x.shape == (2, 3, 4, 5)
        assert x.data.transpose(0, 2, 3, 1).flags.c_contiguous
        assert x.numpy().flags.c_contiguous
    np.testing.assert_array_equal(gpucnn.tensor(source, device=device).numpy(), source)


def test_readers(device: str) -> None:
    x = gpucnn.tensor([[1.5, -2.0]], device=device)
    assert x.tolist() == [[1.5, -2.0]]
    assert x[0, 1].item() == -2.0 and float(x[0, 0]) == 1.5 and int(x[0, 1]) == -2
    assert f"{x[0, 0]:.2f}" == "1.50"
    assert len(x) == 1 and [row.shape for row in x] == [(2,)]
    assert x.numel() == 2 and x.size(1) == 2 and x.dim() == 2
    np.testing.assert_array_equal(np.asarray(x), [[1.5, -2.0]])
    with pytest.raises(ValueError, match="item: expected one element"):
        x.item()
    assert bool(gpucnn.tensor(1, device=device)) and list(range(3))[gpucnn.tensor(2, device=device)] == 2


def test_repr_names_what_is_unusual() -> None:
    x = gpucnn.tensor([1.0, 2.0], device="cpu")
    assert repr(x) == "tensor([1., 2.])"
    assert repr(x.double()) == "tensor([1., 2.], dtype=float64)"
    x.requires_grad_()
    assert repr(x) == "tensor([1., 2.], requires_grad=True)"
    assert repr(x * 2) == "tensor([2., 4.], grad_fn=<Multiply>)"
    assert repr(gpucnn.tensor([1], device="emulated")) == "tensor([1], device='emulated')"


def test_comparisons_give_bool_tensors(device: str) -> None:
    a, b = gpucnn.tensor([1.0, 2.0, 3.0], device=device), gpucnn.tensor([3.0, 2.0, 1.0], device=device)
    for got, expected in (
        (a == b, [False, True, False]),
        (a != b, [True, False, True]),
        (a < b, [True, False, False]),
        (a <= 2, [True, True, False]),
        (a > b, [False, False, True]),
        (a >= b, [False, True, True]),
        (~(a > b), [True, True, False]),
        ((a > 1) & (b > 1), [False, True, False]),
        ((a > 2) | (b > 2), [True, False, True]),
    ):
        assert got.dtype == np.bool_ and got.tolist() == expected
    assert (a == None) is False and len({a, b, a}) == 2  # noqa: E711 - what `in` and dict keys ask


def test_numpy_arrays_and_numbers_mix_with_tensors_from_both_sides(device: str) -> None:
    x = gpucnn.tensor([1.0, 2.0], device=device)
    ones = np.ones(2, np.float32)
    for got, expected in (
        (ones + x, [2, 3]),
        (x - ones, [0, 1]),
        (3 - x, [2, 1]),
        (1 / x, [1, 0.5]),
        (2**x, [2, 4]),
        (np.float32(2) * x, [2, 4]),
    ):
        assert isinstance(got, Tensor) and got.dtype == np.float32 and got.tolist() == expected


def test_in_place_changes(device: str) -> None:
    x = gpucnn.tensor([1.0, 2.0, 3.0], device=device)
    same = x
    x += 1
    x *= gpucnn.tensor([2.0, 2.0, 0.0], device=device)
    x[1:] = gpucnn.tensor([7.0, 8.0], device="cpu")
    x.sub_(1, alpha=0.5).div_(0.5)
    assert same is x and x.tolist() == [7.0, 13.0, 15.0]
    assert x.copy_(np.float32([1, 1, 2])).fill_(4).tolist() == [4, 4, 4] and x.zero_().tolist() == [0, 0, 0]


def test_reductions_follow_numpy(device: str) -> None:
    a = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    x = gpucnn.tensor(a, device=device)
    np.testing.assert_allclose(x.sum((0, 2)).numpy(), a.sum((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(x.mean(1, keepdim=True).numpy(), a.mean(1, keepdims=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(x.var(1).numpy(), a.var(1, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(x.std(correction=0).item(), a.std(), rtol=1e-5)
    assert x.argmax().item() == a.argmax() and x.argmin(2).tolist() == a.argmin(2).tolist()
    values, indices = x.max(1)
    np.testing.assert_array_equal(values.numpy(), a.max(1))
    np.testing.assert_array_equal(indices.numpy(), a.argmax(1))
    assert x.min().item() == a.min() and bool((x < 9).all()) and not (x > 9).any()
    assert gpucnn.tensor([True, True, False], device=device).sum().item() == 2


def test_argmax_of_images_counts_in_the_order_of_the_shape() -> None:
    a = np.zeros((1, 2, 3, 4), np.float32)
    a[0, 1, 2, 3] = 1
    assert gpucnn.tensor(a, device="cpu").argmax().item() == 23


def test_dlpack_shares_memory_both_ways() -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = gpucnn.from_dlpack(a)
    a[0, 0] = 9
    assert x[0, 0].item() == 9 and x.device == gpucnn.device("cpu")
    back = np.from_dlpack(x)
    a[0, 1] = 8
    assert back[0, 1] == 8
    assert gpucnn.from_dlpack(a, device="emulated").device == gpucnn.device("emulated")


def test_dlpack_export_is_in_the_order_of_the_shape() -> None:
    a = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    exported = np.from_dlpack(gpucnn.tensor(a, device="cpu"))
    assert exported.flags.c_contiguous
    np.testing.assert_array_equal(exported, a)


def test_dlpack_refuses_what_it_cannot_give() -> None:
    with pytest.raises(BufferError, match="requires"):
        np.from_dlpack(gpucnn.zeros(2, device="cpu", requires_grad=True))
    with pytest.raises(TypeError, match="from_dlpack: expected an object with __dlpack__"):
        gpucnn.from_dlpack([1, 2])
    with pytest.raises(ValueError, match="cannot become a tensor on cuda:0"):
        gpucnn.from_dlpack(np.zeros(2), device="cuda")


@pytest.mark.peers
def test_dlpack_exchanges_with_pytorch() -> None:
    import torch

    t = torch.arange(4.0)
    x = gpucnn.from_dlpack(t)
    t[0] = 5
    assert x[0].item() == 5
    assert torch.from_dlpack(gpucnn.tensor([1.0, 2.0], device="cpu")).tolist() == [1.0, 2.0]


def test_devices_by_name() -> None:
    assert str(gpucnn.device("cuda:1")) == "cuda:1" and gpucnn.device("cuda") == gpucnn.device("cuda:0")
    for wrong in ("gpu", "cpu:1", "cuda:x", "cuda:-1", ""):
        with pytest.raises(ValueError, match=r"device: .* is unknown"):
            gpucnn.device(wrong)
    with pytest.raises(TypeError):
        gpucnn.device(1)  # type: ignore[arg-type]


def test_moves_between_devices_and_dtypes_keep_values_and_order() -> None:
    a = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    x = gpucnn.tensor(a, device="cpu")
    y = x.to("emulated")
    assert y.device == gpucnn.device("emulated") and y.data.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(y.cpu().numpy(), a)
    assert x.to("cpu") is x and x.to(np.float32) is x
    assert x.double().dtype == np.float64 and x.to("emulated", np.float64).dtype == np.float64
    y.fill_(0)
    np.testing.assert_array_equal(x.numpy(), a)


@pytest.mark.parametrize("wrong", [["a", "b"], [None], [1j]])
def test_what_is_no_number_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="tensor: expected numbers"):
        gpucnn.tensor(wrong, device="cpu")


def test_wrapping_takes_arrays_of_the_device_only() -> None:
    with pytest.raises(TypeError, match=r"expected a numpy.ndarray for cpu"):
        Tensor([1.0], "cpu")  # type: ignore[arg-type]
