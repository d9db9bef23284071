"""A tensor: an array on a device, and its place on the tape.

Four-axis tensors have PyTorch's shape (N, C, H, W) over channels-last memory, see gpucnn/layout.py. The arithmetic,
the shape and reduction methods and the operators of :class:`Tensor` are functions of gpucnn/functional/, which
attaches them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from gpucnn import backends, dtypes, indexing, layout
from gpucnn.autograd import Node, Recorded, Version, backward, is_grad_enabled, running_on
from gpucnn.device import Device
from gpucnn.device import device as _device

float16 = np.dtype(np.float16)
float32 = np.dtype(np.float32)
float64 = np.dtype(np.float64)
int32 = np.dtype(np.int32)
int64 = np.dtype(np.int64)
uint8 = np.dtype(np.uint8)
bool_ = np.dtype(np.bool_)

DeviceLike = str | Device | None
_Method = Callable[..., Any]
_float = float  # within Tensor, float is a method
_accumulating = threading.Lock()  # threads may walk back to the same leaves


class Tensor(Recorded):
    """An array on a device that gradients can flow through. Make one with :func:`gpucnn.tensor` and its like.

    ``Tensor(array, device)`` wraps an array of that device's module (NumPy or CuPy) without a copy.
    """

    __array_priority__ = 1000  # numpy_array + tensor goes to Tensor.__radd__
    __array_ufunc__ = None

    def __init__(
        self, data: Any, device: DeviceLike = None, requires_grad: bool = False, version: Version | None = None
    ) -> None:
        self.device = where = device if isinstance(device, Device) else resolve_device(device)
        if type(data) is not np.ndarray or where.type != "cpu":
            data = _checked(data, where)
        if data.dtype.kind not in "fiub" and dtypes.kind(data.dtype) != "f":
            raise TypeError(f"Tensor: expected real numbers or bools, got elements of {data.dtype}")
        self.data = data
        self.version = Version() if version is None else version
        if requires_grad:
            self.requires_grad_()

    # ---- what it is ----

    @property
    def backend(self) -> backends.Backend:
        """The primitives of the tensor's device."""
        return backends.get(self.device)

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes, (N, C, H, W) for images."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of the elements."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.data.shape)

    @property
    def grad_fn(self) -> Node | None:
        """The recorded call that made this tensor, None for a leaf."""
        return self.node

    def size(self, dim: int | None = None) -> int | tuple[int, ...]:
        """The shape, or the length of one axis."""
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        """The number of elements."""
        return int(self.data.size)

    def dim(self) -> int:
        """The number of axes."""
        return self.ndim

    def is_floating_point(self) -> bool:
        """Whether the elements are real numbers."""
        return dtypes.is_floating(self.dtype)

    # ---- the tape ----

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Turns gradients for this leaf on or off and returns it.

        Raises for integers and for results of recorded calls.
        """
        if requires_grad and not self.is_floating_point():
            raise TypeError(f"requires_grad: only floating-point tensors have gradients, got {self.dtype}")
        if not requires_grad and not self.is_leaf:
            raise RuntimeError(
                "requires_grad: a result of recorded calls cannot stop requiring gradients; use detach()"
            )
        self.requires_grad = requires_grad
        return self

    def detach(self) -> Tensor:
        """The same memory as a tensor that the tape does not know."""
        same = Tensor.__new__(Tensor)  # nothing to check: every call of an operator makes one
        same.data, same.device, same.version = self.data, self.device, self.version
        return same

    def backward(self, gradient: Tensor | None = None, retain_graph: bool = False, create_graph: bool = False) -> None:
        """Adds to the ``grad`` of every leaf the gradient of this tensor, weighted by ``gradient`` (default 1 for one
        element).

        Saved tensors are freed on the way, unless ``retain_graph``. Raises RuntimeError for a tensor that requires no
        gradient, for several elements without ``gradient``, and for ``create_graph`` (gradients of gradients are not
        supported).
        """
        if create_graph:
            raise RuntimeError("backward: create_graph=True: gradients of gradients are not supported")
        if not self.requires_grad:
            raise RuntimeError("backward: this tensor requires no gradient and was not computed from one that does")
        if gradient is None:
            if self.numel() != 1:
                raise RuntimeError(
                    f"backward: a tensor of shape {self.shape} needs gradient=, only one element goes without"
                )
            gradient = _one(self.shape, self.dtype, self.device)
        elif not isinstance(gradient, Tensor):
            raise TypeError(f"backward: gradient must be a tensor, got {type(gradient).__name__}")
        elif gradient.shape != self.shape or gradient.device != self.device:
            raise ValueError(
                f"backward: gradient is {gradient.shape} on {gradient.device}, the tensor {self.shape} on {self.device}"
            )
        seed = gradient if gradient.unit else gradient.detach().to(dtype=self.dtype)
        try:
            backward(self, seed, retain_graph, _zeros)
        finally:
            if seed.unit and seed.version.count:  # a function's backward has changed it
                _ones.clear()

    def accumulate_grad(self, gradient: Tensor) -> None:
        """Adds ``gradient`` to ``grad``, in place where there is one; in the memory order of the tensor."""
        with _accumulating, running_on(self.device):
            if self.grad is None:
                self.grad = Tensor(layout.like(gradient.data, self.data), self.device)
                return
            mine, other = self.grad.data, layout.like(gradient.data, self.grad.data)
            self.backend.xp.add(mine, other, out=mine)
            self.grad.version.count += 1

    # ---- values ----

    def numpy(self) -> np.ndarray[Any, Any]:
        """A copy as a C-contiguous NumPy array, from any device, with or without gradients.

        Raises what the data got wrong.
        """
        with self.backend.context():
            host: np.ndarray[Any, Any] = self.backend.to_host(self.data)
        return np.ascontiguousarray(host) if self.ndim else host

    def item(self) -> Any:
        """The one element as a Python number. Raises ValueError for another number of elements."""
        if self.numel() != 1:
            raise ValueError(f"item: expected one element, got shape {self.shape}")
        return self.numpy().item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self.numpy().tolist()

    def __float__(self) -> _float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"only integer tensors can be an index, got {self.dtype}")
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        for index in range(len(self)):
            yield self[index]

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError("deepcopy: only leaves are copied; use detach() for a result of recorded calls")
        same = memo[id(self)] = type(self).__new__(type(self))
        Tensor.__init__(same, self.detach().clone().data, self.device, self.requires_grad)
        same.grad = None if self.grad is None else self.grad.clone()
        return same

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False:
            raise ValueError("a tensor's values are copied to become a NumPy array; copy=False cannot be had")
        return self.numpy() if dtype is None else self.numpy().astype(dtype, copy=False)

    def __dlpack__(self, **options: Any) -> Any:
        """Exports in C order.

        The memory itself where it is C-contiguous, else a copy. Raises for tensors that require gradients, and with
        ``copy=False`` where a copy is needed.
        """
        if self.requires_grad:
            raise BufferError("DLPack: a tensor that requires gradients cannot be exported; use detach()")
        with self.backend.context():
            array = layout.contiguous(self.data)
            if array is not self.data and options.pop("copy", None) is False:
                raise BufferError(f"DLPack: shape {self.shape} is not in C order in memory, and copy=False forbids one")
            return array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.numel() == 1 else format(str(self), spec)

    def __repr__(self) -> str:
        values = self.numpy()
        if dtypes.is_half(values.dtype):  # NumPy formats bfloat16 without regard to the precision asked for
            values = values.astype(float32)
        body = np.array2string(values, separator=", ", prefix="tensor(", precision=4, threshold=1000)
        extras = [] if self.device.type == "cpu" else [f"device='{self.device}'"]
        if self.dtype not in (float32, int64, bool_):
            extras.append(f"dtype={self.dtype}")
        if self.node is not None:
            extras.append(f"grad_fn={self.node!r}")
        elif self.requires_grad:
            extras.append("requires_grad=True")
        return f"tensor({', '.join([body, *extras])})"

    # ---- in place ----

    def modified(self) -> None:
        """Notes that the memory was changed in place, so that a backward that needs the old values raises."""
        self.version.count += 1

    def copy_(self, source: Any) -> Tensor:
        """Fills this tensor with ``source`` (a tensor of any device, an array, a list or a number), broadcast and cast.

        Not recorded: raises RuntimeError where a gradient would be lost, as all methods here do.
        """
        self._write_check("copy_", source)
        with running_on(self.device):
            self.data[...] = self._source(source)
        self.modified()
        return self

    def zero_(self) -> Tensor:
        """Fills this tensor with zeros. Not recorded."""
        return self.fill_(0)

    def fill_(self, value: _float) -> Tensor:
        """Fills this tensor with ``value``. Not recorded."""
        self._write_check("fill_", value)
        with running_on(self.device):
            self.data.fill(value.item() if isinstance(value, Tensor) else value)
        self.modified()
        return self

    def add_(self, other: Any, alpha: _float = 1) -> Tensor:
        """self += alpha * other. Not recorded."""
        return self._update("add_", "add", other if alpha == 1 else other * alpha)

    def sub_(self, other: Any, alpha: _float = 1) -> Tensor:
        """self -= alpha * other. Not recorded."""
        return self._update("sub_", "subtract", other if alpha == 1 else other * alpha)

    def mul_(self, other: Any) -> Tensor:
        """self *= other. Not recorded."""
        return self._update("mul_", "multiply", other)

    def div_(self, other: Any) -> Tensor:
        """self /= other. Not recorded."""
        return self._update("div_", "divide", other)

    __iadd__ = add_
    __isub__ = sub_
    __imul__ = mul_
    __itruediv__ = div_

    def __setitem__(self, index: Any, value: Any) -> None:
        self._write_check("item assignment", value)
        with running_on(self.device):
            self.data[indexing.prepared(index, self)] = self._source(value)
        self.modified()

    def _update(self, name: str, ufunc: str, other: Any) -> Tensor:
        self._write_check(name, other)
        if isinstance(other, Tensor) and other.device != self.device:
            raise ValueError(f"{name}: tensors on two devices: {self.device} and {other.device}")
        with running_on(self.device):
            getattr(self.backend.xp, ufunc)(self.data, self._source(other), out=self.data, casting="same_kind")
        self.modified()
        return self

    def _write_check(self, name: str, source: Any) -> None:
        recorded = self.requires_grad or (isinstance(source, Tensor) and source.requires_grad)
        if recorded and is_grad_enabled():
            raise RuntimeError(
                f"{name}: in-place changes of tensors that require gradients, or by such, are not recorded;"
                " make a new tensor, or use gpucnn.no_grad() if no gradient is meant"
            )

    def _source(self, value: Any) -> Any:
        """What is to be written here, as an array of this tensor's device that overlaps nothing, or as a number."""
        if isinstance(value, Tensor):
            if value.device != self.device:
                return self.backend.from_host(value.numpy())
            # CuPy writes overlapping memory in no certain order.
            overlaps = value.version is self.version and value.data is not self.data
            return layout.elementwise(lambda a: a.copy(), value.data) if overlaps else value.data
        if isinstance(value, (list, tuple)):
            value = np.asarray(value)  # CuPy takes no lists
        return self.backend.from_host(value) if isinstance(value, np.ndarray) else value

    # ---- attached by gpucnn/functional/methods.py ----

    __add__: ClassVar[_Method]
    __radd__: ClassVar[_Method]
    __sub__: ClassVar[_Method]
    __rsub__: ClassVar[_Method]
    __mul__: ClassVar[_Method]
    __rmul__: ClassVar[_Method]
    __truediv__: ClassVar[_Method]
    __rtruediv__: ClassVar[_Method]
    __pow__: ClassVar[_Method]
    __rpow__: ClassVar[_Method]
    __neg__: ClassVar[_Method]
    __abs__: ClassVar[_Method]
    __matmul__: ClassVar[_Method]
    __getitem__: ClassVar[_Method]
    __eq__: ClassVar[_Method]
    __ne__: ClassVar[_Method]
    __lt__: ClassVar[_Method]
    __le__: ClassVar[_Method]
    __gt__: ClassVar[_Method]
    __ge__: ClassVar[_Method]
    __invert__: ClassVar[_Method]
    __and__: ClassVar[_Method]
    __rand__: ClassVar[_Method]
    __or__: ClassVar[_Method]
    __ror__: ClassVar[_Method]
    __xor__: ClassVar[_Method]
    __rxor__: ClassVar[_Method]
    T: Any
    abs: ClassVar[_Method]
    add: ClassVar[_Method]
    all: ClassVar[_Method]
    any: ClassVar[_Method]
    argmax: ClassVar[_Method]
    argmin: ClassVar[_Method]
    bfloat16: ClassVar[_Method]
    clamp: ClassVar[_Method]
    clip: ClassVar[_Method]
    clone: ClassVar[_Method]
    contiguous: ClassVar[_Method]
    cpu: ClassVar[_Method]
    cuda: ClassVar[_Method]
    div: ClassVar[_Method]
    double: ClassVar[_Method]
    exp: ClassVar[_Method]
    expand: ClassVar[_Method]
    flatten: ClassVar[_Method]
    float: ClassVar[_Method]
    half: ClassVar[_Method]
    log: ClassVar[_Method]
    log_softmax: ClassVar[_Method]
    long: ClassVar[_Method]
    matmul: ClassVar[_Method]
    max: ClassVar[_Method]
    maximum: ClassVar[_Method]
    mean: ClassVar[_Method]
    min: ClassVar[_Method]
    minimum: ClassVar[_Method]
    mul: ClassVar[_Method]
    neg: ClassVar[_Method]
    permute: ClassVar[_Method]
    pow: ClassVar[_Method]
    relu: ClassVar[_Method]
    reshape: ClassVar[_Method]
    softmax: ClassVar[_Method]
    split: ClassVar[_Method]
    sqrt: ClassVar[_Method]
    squeeze: ClassVar[_Method]
    std: ClassVar[_Method]
    sub: ClassVar[_Method]
    sum: ClassVar[_Method]
    t: ClassVar[_Method]
    to: ClassVar[_Method]
    transpose: ClassVar[_Method]
    unsqueeze: ClassVar[_Method]
    var: ClassVar[_Method]
    view: ClassVar[_Method]
    where: ClassVar[_Method]


_ones: dict[tuple[Device, Any, tuple[int, ...]], Any] = {}  # arrays of one element, 1: backward's own beginning


def _one(shape: tuple[int, ...], dtype: Any, device: Device) -> Tensor:
    """The gradient of a number by itself. Its array is kept, so that a step makes none."""
    array = _ones.get((device, dtype, shape))
    if array is None:
        array = filled("ones", shape, dtype, device).data
        if not getattr(getattr(backends.get(device), "engine", None), "capturing", False):  # there it is not 1 yet
            _ones[device, dtype, shape] = array
    one = Tensor(array, device)
    one.unit = True
    return one


def _checked(data: Any, device: Device) -> Any:
    """``data`` as an array of the device's module. Raises TypeError if it is none."""
    xp = backends.get(device).xp
    if isinstance(data, np.generic) and xp is np:
        data = np.asarray(data)  # NumPy's functions make scalars of arrays without axes
    if not isinstance(data, xp.ndarray):
        kind = f"{xp.__name__}.ndarray"
        raise TypeError(f"Tensor: expected a {kind} for {device}, got {type(data).__name__}; see gpucnn.tensor")
    return data


def resolve_device(device: DeviceLike) -> Device:
    """The device of that name, the default one for None."""
    return backends.default_device() if device is None else _device(device)


def _zeros(shape: tuple[int, ...], dtype: Any, device: Device) -> Tensor:
    return filled("zeros", shape, dtype, device)


def filled(name: str, shape: tuple[int, ...], dtype: Any, device: Device) -> Tensor:
    """What the array module's ``zeros``, ``ones`` or ``empty`` makes, as a tensor."""
    backend = backends.get(device)
    with backend.context():
        if backend.capturing and name != "empty" and backend.name == "emulated":  # NumPy would fill it once
            array = layout.allocate(backend.empty, shape, dtypes.as_dtype(dtype))  # type: ignore[attr-defined]
            array.fill(1 if name == "ones" else 0)
            return Tensor(array, device)
        return Tensor(layout.allocate(getattr(backend.xp, name), shape, dtypes.as_dtype(dtype)), device)
