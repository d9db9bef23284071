"""Making tensors: of data, of one value, at random, and of other libraries' memory."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucnn import backends, dtypes, layout, random
from gpucnn.device import Device
from gpucnn.device import device as _device
from gpucnn.tensor import DeviceLike, Tensor, bool_, filled, float32, int64, resolve_device


def _on_device(array: np.ndarray[Any, Any], device: DeviceLike, requires_grad: bool) -> Tensor:
    """A tensor of a fresh NumPy array, which a device of NumPy arrays takes over."""
    where = resolve_device(device)
    backend = backends.get(where)
    with backend.context():
        in_place = backend.xp is np and not backend.capturing
        return Tensor(array if in_place else backend.from_host(array), where, requires_grad)


def tensor(data: Any, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """A new tensor that copies ``data``. Four axes become channels-last.

    ``data``: numbers, nested sequences, NumPy or CuPy arrays, tensors.

    Python floats become float32, ints int64; arrays keep their dtype unless ``dtype`` says otherwise. ``device``
    defaults to that of a tensor given, else to the default device.
    """
    if isinstance(data, Tensor):
        device = data.device if device is None else device
        data = data.numpy()
    elif hasattr(data, "__cuda_array_interface__") and hasattr(data, "get"):
        data = data.get()
    inferred = not hasattr(data, "dtype")
    array = np.array(data, dtype=None if dtype is None else dtypes.as_dtype(dtype))
    if dtype is None and inferred and array.dtype == np.float64:
        array = array.astype(np.float32)
    elif dtype is None and inferred and array.dtype == np.int_:
        array = array.astype(np.int64, copy=False)  # NumPy 1 makes 32 bits of Python's ints on Windows
    if dtypes.kind(array.dtype) not in "fiub":
        raise TypeError(f"tensor: expected numbers, got elements of {array.dtype}")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return _on_device(layout.canonical(array), device, requires_grad)


def _shape(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    if len(sizes) == 1 and isinstance(sizes[0], Sequence):
        sizes = tuple(sizes[0])
    found = tuple(operator.index(size) for size in sizes)
    if min(found, default=0) < 0:
        raise ValueError(f"the sizes of a tensor cannot be negative, got {found}")
    return found


def _filled(name: str, size: tuple[Any, ...], dtype: Any, device: DeviceLike, requires_grad: bool) -> Tensor:
    return filled(name, _shape(size), dtype or float32, resolve_device(device)).requires_grad_(requires_grad)


def zeros(*size: Any, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """Zeros of the given sizes (numbers or one sequence), float32 unless ``dtype`` says otherwise."""
    return _filled("zeros", size, dtype, device, requires_grad)


def ones(*size: Any, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """Ones of the given sizes (numbers or one sequence), float32 unless ``dtype`` says otherwise."""
    return _filled("ones", size, dtype, device, requires_grad)


def empty(*size: Any, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """Uninitialised memory of the given sizes, float32 unless ``dtype`` says otherwise."""
    return _filled("empty", size, dtype, device, requires_grad)


def full(
    size: Sequence[int] | int,
    fill_value: Any,
    dtype: Any = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:
    """``fill_value`` in every place; the dtype is that of the value (float32, int64 or bool) unless given."""
    kind = np.asarray(fill_value).dtype.kind
    chosen = dtype or {"b": bool_, "i": int64, "u": int64}.get(kind, float32)
    result = _filled("empty", (size,), chosen, device, False).fill_(fill_value)
    return result.requires_grad_(requires_grad)


def zeros_like(input: Tensor, dtype: Any = None) -> Tensor:
    """Zeros of the shape, dtype and device of ``input``."""
    return zeros(input.shape, dtype=dtype or input.dtype, device=input.device)


def ones_like(input: Tensor, dtype: Any = None) -> Tensor:
    """Ones of the shape, dtype and device of ``input``."""
    return ones(input.shape, dtype=dtype or input.dtype, device=input.device)


def arange(*bounds: float, dtype: Any = None, device: DeviceLike = None) -> Tensor:
    """[start, end) by steps, as ``range``; int64 for ints, float32 for floats."""
    array = np.arange(*bounds)
    chosen = dtype or (float32 if array.dtype.kind == "f" else int64)
    return _on_device(array.astype(dtypes.as_dtype(chosen)), device, False)


def randn(*size: Any, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """Standard normal variates of the global stream (:func:`gpucnn.manual_seed`), the same on every device."""
    key = random.default_generator.next_key(random.Purpose.SAMPLE)
    values = random.normal(_shape(size), key).astype(dtypes.as_dtype(dtype or float32), copy=False)
    return _on_device(layout.canonical(values), device, requires_grad)


def rand(*size: Any, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """Uniform variates in [0, 1) of the global stream (:func:`gpucnn.manual_seed`), the same on every device."""
    key = random.default_generator.next_key(random.Purpose.SAMPLE)
    values = random.uniform(_shape(size), key).astype(dtypes.as_dtype(dtype or float32), copy=False)
    return _on_device(layout.canonical(values), device, requires_grad)


def from_dlpack(source: Any, device: DeviceLike = None) -> Tensor:
    """A tensor over the memory of ``source``, an object with ``__dlpack__`` (PyTorch, CuPy, NumPy ...), without a copy.

    CPU memory becomes a ``cpu`` tensor, or an ``emulated`` one if ``device`` says so; CUDA memory a tensor of its GPU.
    """
    if not hasattr(source, "__dlpack__") or not hasattr(source, "__dlpack_device__"):
        raise TypeError(f"from_dlpack: expected an object with __dlpack__, got {type(source).__name__}")
    kind, index = source.__dlpack_device__()
    dl_cpu, dl_cuda, dl_managed = 1, 2, 13  # DLDeviceType
    if kind in (dl_cuda, dl_managed):
        found = Device("cuda", int(index))
        if device is not None and _device(device) != found:
            raise ValueError(f"from_dlpack: the memory is on {found}, not on {_device(device)}")
        backend = backends.get(found)
        with backend.context():
            return Tensor(backend.xp.from_dlpack(source), found)
    wanted = Device("cpu") if device is None else _device(device)
    if int(kind) != dl_cpu or wanted.type == "cuda":
        raise ValueError(f"from_dlpack: memory of DLPack device type {int(kind)} cannot become a tensor on {wanted}")
    return Tensor(np.from_dlpack(source), wanted)
