"""Other shapes of the same elements: views, joins, parts, and moves between devices and dtypes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucnn import backends, dtypes, indexing, layout
from gpucnn.autograd import Function, running_on
from gpucnn.device import Device
from gpucnn.device import device as _device
from gpucnn.functional import checks, deferred
from gpucnn.functional.deferred import IN_C_ORDER
from gpucnn.functional.operands import common_dtype, unbroadcast
from gpucnn.functional.rectified import keep, pass_on
from gpucnn.tensor import Tensor, float16, float32, float64, int64

_TO_NHWC = {0: 0, 1: 3, 2: 1, 3: 2}  # an axis of (N, C, H, W) in memory order


def _alias(x: Tensor, array: Any) -> Tensor:
    """``array`` as a tensor, which shares the version of ``x`` where it shares its memory."""
    return Tensor(array, x.device, version=x.version if layout.owner(array) is layout.owner(x.data) else None)


class Reshape(Function):
    """The elements, in C order, in another shape: a view where memory allows, else a copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.shape = x.shape
        ctx.defers = deferred.taken(x, IN_C_ORDER)
        if x.shape == shape:
            return keep(ctx, x, _alias(x, x.data))
        return keep(ctx, x, _alias(x, _reshaped(x, shape)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if grad.shape == ctx.shape:
            return pass_on(ctx, grad), None
        if ctx.defers and grad.data.flags.c_contiguous:
            flat = grad.data.reshape(ctx.shape)
            dx = deferred.Deferred(IN_C_ORDER, (flat,), lambda: channels_last(grad.backend, flat), grad, ctx.shape)
            return pass_on(ctx, dx), None
        return pass_on(ctx, Tensor(_reshaped(grad, ctx.shape), grad.device)), None


def _reshaped(x: Tensor, shape: tuple[int, ...]) -> Any:
    """The array of ``x`` in another shape, in the memory order of new tensors; copies are the backend's transposes."""
    array, backend = x.data, x.backend
    if not backend.computes(array.dtype) or not array.size:
        return layout.canonical(layout.contiguous(array).reshape(shape))
    if not array.flags.c_contiguous and layout.is_channels_last(array):
        n, c, h, w = array.shape
        array = backend.transpose(layout.memory_view(array).reshape(n, h * w, c))
        layout.note_copy()
    return channels_last(backend, layout.contiguous(array).reshape(shape))


def channels_last(backend: backends.Backend, array: Any) -> Any:
    """``array`` in the memory order of new tensors; images in C order go through the backend's transpose."""
    if array.ndim != 4 or layout.is_channels_last(array) or not array.flags.c_contiguous or not array.size:
        return layout.canonical(array)
    n, c, h, w = array.shape
    layout.note_copy()
    return layout.nchw(backend.transpose(array.reshape(n, c, h * w)).reshape(n, h, w, c))


class Permute(Function):
    """The axes in another order; always a view."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        ctx.inverse = tuple(int(axis) for axis in np.argsort(axes))
        return keep(ctx, x, _alias(x, x.data.transpose(axes)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return pass_on(ctx, Tensor(grad.data.transpose(ctx.inverse), grad.device)), None


class Expand(Function):
    """Axes of length 1, or new ones in front, repeated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.shape = x.shape
        if math.prod(shape) == x.numel():  # new axes only: NumPy's broadcast_to would be read-only
            return _alias(x, layout.canonical(x.data.reshape(shape)))
        return Tensor(layout.canonical(x.backend.xp.broadcast_to(x.data, shape)), x.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return unbroadcast(grad, ctx.shape), None


class Index(Function):
    """x[index]; in backward repeated indices add up in their order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Any, basic: bool) -> Tensor:
        ctx.shape, ctx.index, ctx.basic = x.shape, index, basic
        part = x.data[index]
        if basic:
            return _alias(x, layout.as_array(x.backend.xp, part))
        return Tensor(layout.canonical(layout.as_array(x.backend.xp, part)), x.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        xp, backend = grad.backend.xp, grad.backend
        if ctx.basic:
            dx = xp.zeros(ctx.shape, dtype=grad.dtype)
            dx[ctx.index] = grad.data
        else:
            size = math.prod(ctx.shape)
            positions = xp.arange(size, dtype=int64).reshape(ctx.shape)[ctx.index]
            if dtypes.is_half(grad.dtype):  # added up in float32, rounded by the tape
                grad = grad.to(dtype=float32)
            values = layout.contiguous(grad.data).reshape(-1)
            dx = backend.scatter_add(size, layout.contiguous(positions).reshape(-1), values).reshape(ctx.shape)
        return Tensor(layout.canonical(dx), grad.device), None, None


class Cat(Function):
    """Tensors joined along an axis that they have."""

    @staticmethod
    def forward(ctx: Any, axis: int, *tensors: Tensor) -> Tensor:
        xp = tensors[0].backend.xp
        dtype = common_dtype(*tensors)
        ctx.axis, ctx.sizes = axis, [tensor.shape[axis] for tensor in tensors]
        if tensors[0].ndim == 4:
            parts = [tensor.data.transpose(0, 2, 3, 1).astype(dtype, copy=False) for tensor in tensors]
            joined = layout.nchw(layout.contiguous(xp.concatenate(parts, axis=_TO_NHWC[axis])))
        else:
            parts = [tensor.data.astype(dtype, copy=False) for tensor in tensors]
            joined = layout.contiguous(xp.concatenate(parts, axis=axis))
        return Tensor(joined, tensors[0].device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        ends = np.cumsum(ctx.sizes).tolist()
        lead = (slice(None),) * ctx.axis
        parts = [grad.data[(*lead, slice(end - size, end))] for size, end in zip(ctx.sizes, ends, strict=True)]
        return None, *(Tensor(layout.canonical(part), grad.device) for part in parts)


class PadChannels(Function):
    """Channels of zeros behind those of (N, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, added: int) -> Tensor:
        ctx.channels = x.shape[1]
        return Tensor(layout.nchw(x.backend.resize_rows(layout.nhwc(x.data), x.shape[1] + added)), x.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return Tensor(layout.nchw(grad.backend.resize_rows(layout.nhwc(grad.data), ctx.channels)), grad.device), None


class To(Function):
    """A copy on another device, in another dtype, or both."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, device: Device, dtype: Any) -> Tensor:
        ctx.device, ctx.dtype = x.device, x.dtype
        return _moved(x, device, dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _moved(grad, ctx.device, ctx.dtype), None, None


def _moved(x: Tensor, device: Device, dtype: Any) -> Tensor:
    array = layout.settled(x.data)
    if array.dtype != dtype:
        array = _cast(x, array, dtype)
    if x.device != device:
        host = x.backend.to_host(array)
        with running_on(device):
            array = backends.get(device).from_host(host)
    elif array is x.data:
        array = layout.elementwise(lambda a: a.copy(), array)
    return Tensor(array, device)


def _cast(x: Tensor, array: Any, dtype: Any) -> Any:
    if float32 in (array.dtype, dtype) and (dtypes.is_half(array.dtype) or dtypes.is_half(dtype)):
        return layout.from_memory(x.backend.cast(layout.memory_view(array), dtype), array)
    if array.ndim != 4:
        return array.astype(dtype, order="K")
    return layout.elementwise(lambda a: a.astype(dtype), array)


class Clone(Function):
    """A copy in its own memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Tensor(layout.elementwise(lambda a: a.copy(), layout.settled(x.data)), x.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


# ---- the public operators ----


def _sizes(operator: str, sizes: tuple[Any, ...]) -> tuple[int, ...]:
    if len(sizes) == 1 and isinstance(sizes[0], Sequence):
        sizes = tuple(sizes[0])
    if not all(hasattr(size, "__index__") for size in sizes):
        raise TypeError(f"{operator}: sizes must be ints, got {sizes}")
    return tuple(int(size) for size in sizes)


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The elements, in C order of ``input.shape``, in ``shape``; one size may be -1 and is worked out."""
    checks.tensors("reshape", input=input)
    sizes = _sizes("reshape", shape)
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and known and input.numel() % known == 0:
        sizes = tuple(input.numel() // known if size == -1 else size for size in sizes)
    if min(sizes, default=0) < 0 or math.prod(sizes) != input.numel():
        raise ValueError(f"reshape: {input.shape} has {input.numel()} elements and cannot become {sizes}")
    return Reshape.apply(input, sizes)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes from ``start_dim`` to ``end_dim`` made one, in PyTorch's order C, H, W."""
    checks.tensors("flatten", input=input)
    if not input.ndim:
        return reshape(input, 1)
    start, end = checks.axis("flatten", start_dim, input.ndim), checks.axis("flatten", end_dim, input.ndim)
    if start > end:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    merged = math.prod(input.shape[start : end + 1])
    return reshape(input, (*input.shape[:start], merged, *input.shape[end + 1 :]))


def permute(input: Tensor, *dims: Any) -> Tensor:
    """The axes in the order ``dims``; a view."""
    checks.tensors("permute", input=input)
    order = tuple(checks.axis("permute", dim, input.ndim) for dim in _sizes("permute", dims))
    if sorted(order) != list(range(input.ndim)):
        raise ValueError(f"permute: {dims} is no order of the {input.ndim} axes of {input.shape}")
    return Permute.apply(input, order)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes exchanged; a view."""
    checks.tensors("transpose", input=input)
    first, second = checks.axis("transpose", dim0, input.ndim), checks.axis("transpose", dim1, input.ndim)
    order = list(range(input.ndim))
    order[first], order[second] = order[second], order[first]
    return Permute.apply(input, tuple(order))


def t(input: Tensor) -> Tensor:
    """A matrix transposed; tensors of fewer axes as they are. Raises ValueError for more than two axes."""
    if input.ndim > 2:
        raise ValueError(f"t: expected at most two axes, got {input.shape}")
    return transpose(input, 0, 1) if input.ndim == 2 else input


def squeeze(input: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Without the axes of length 1, all or those named; a named axis of another length stays."""
    checks.tensors("squeeze", input=input)
    gone = [axis for axis in checks.axes("squeeze", dim, input.ndim) if input.shape[axis] == 1]
    return reshape(input, tuple(size for axis, size in enumerate(input.shape) if axis not in gone))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new axis of length 1 at ``dim``."""
    checks.tensors("unsqueeze", input=input)
    axis = checks.axis("unsqueeze", dim, input.ndim + 1)
    return reshape(input, (*input.shape[:axis], 1, *input.shape[axis:]))


def expand(input: Tensor, *sizes: Any) -> Tensor:
    """Axes of length 1, or new ones in front, repeated to ``sizes`` in new memory; -1 keeps a size."""
    checks.tensors("expand", input=input)
    wanted = _sizes("expand", sizes)
    added = len(wanted) - input.ndim
    old = (1,) * added + input.shape
    shape = tuple(have if want == -1 else want for want, have in zip(wanted, old, strict=added >= 0))
    if added < 0 or any(have not in (1, want) for want, have in zip(shape, old, strict=True)):
        raise ValueError(f"expand: {input.shape} cannot become {wanted}")
    return Expand.apply(input, shape)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along ``dim``; all other sizes must agree."""
    _same_rank("cat", tensors)
    axis = checks.axis("cat", dim, tensors[0].ndim)
    for tensor in tensors:
        if any(a != b for i, (a, b) in enumerate(zip(tensor.shape, tensors[0].shape, strict=True)) if i != axis):
            raise ValueError(f"cat: sizes off dim {dim} must agree, got {', '.join(str(t.shape) for t in tensors)}")
    return Cat.apply(axis, *tensors)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    _same_rank("stack", tensors)
    if len({tensor.shape for tensor in tensors}) > 1:
        raise ValueError(f"stack: shapes must agree, got {', '.join(str(t.shape) for t in tensors)}")
    return cat([unsqueeze(tensor, dim) for tensor in tensors], dim)


def _same_rank(operator: str, tensors: Sequence[Tensor]) -> None:
    if not len(tensors):
        raise ValueError(f"{operator}: expected at least one tensor")
    checks.tensors(operator, **{f"tensor {index}": tensor for index, tensor in enumerate(tensors)})
    if len({tensor.ndim for tensor in tensors}) > 1:
        raise ValueError(f"{operator}: ranks must agree, got {', '.join(str(t.shape) for t in tensors)}")


def pad_channels(input: Tensor, added: int) -> Tensor:
    """``input`` (N, C, H, W) with ``added`` channels of zeros behind its own, as ``pad(input, (0, 0, 0, 0, 0, added))``
    in PyTorch. Raises ValueError for another rank and for ``added`` below 0.
    """
    checks.floating("pad_channels", input=input)
    if input.ndim != 4 or not hasattr(added, "__index__") or int(added) < 0:
        raise ValueError(f"pad_channels: expected input (N, C, H, W) and added >= 0, got {input.shape} and {added!r}")
    return PadChannels.apply(input, int(added)) if int(added) else input


def split(input: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Parts along ``dim``: of one size (the last may be smaller), or of the sizes listed."""
    checks.tensors("split", input=input)
    axis = checks.axis("split", dim, input.ndim)
    length = input.shape[axis]
    if hasattr(split_size_or_sections, "__index__"):
        size = int(split_size_or_sections)
        if size < 1:
            raise ValueError(f"split: the size of a part must be positive, got {size}")
        sections = [min(size, length - start) for start in range(0, length, size)] or [0]
    else:
        sections = list(_sizes("split", tuple(split_size_or_sections)))
        if sum(sections) != length or min(sections, default=0) < 0:
            raise ValueError(f"split: sections {sections} do not add up to {length}, the length of dim {dim}")
    ends = np.cumsum(sections).tolist()
    lead = (slice(None),) * axis
    return tuple(getitem(input, (*lead, slice(end - size, end))) for size, end in zip(sections, ends, strict=True))


def getitem(input: Tensor, index: Any) -> Tensor:
    """input[index] as NumPy has it: ints, slices, None, ..., and tensors, arrays or lists of ints or bools.

    Ints and slices give a view. In backward the gradients of a repeated index add up, in the order of the indices.
    """
    try:
        with running_on(input.device):
            found = indexing.prepared(index, input)
        return Index.apply(input, found, indexing.is_basic(index))
    except IndexError as error:
        raise IndexError(f"index of a tensor of shape {input.shape}: {error}") from None


def to(input: Tensor, *targets: Any, device: str | Device | None = None, dtype: Any = None) -> Tensor:
    """The tensor on another device, in another dtype, or both.

    ``x.to("cuda")``, ``x.to(gpucnn.float64)``, ``x.to("cpu", np.float32)``.

    The tensor itself where nothing changes.
    """
    checks.tensors("to", input=input)
    for target in targets:
        if isinstance(target, Tensor):
            device, dtype = target.device, target.dtype
        elif isinstance(target, (str, Device)):
            device = target
        else:
            dtype = target
    where = input.device if device is None else _device(device)
    kind = input.dtype if dtype is None else dtypes.as_dtype(dtype)
    if where == input.device and kind == input.dtype:
        return input
    return To.apply(input, where, kind)


def cpu(input: Tensor) -> Tensor:
    """On the CPU; the tensor itself where it is there."""
    return to(input, "cpu")


def cuda(input: Tensor, device: int | str | Device | None = None) -> Tensor:
    """On the GPU of this number or name, the first one for None; the tensor itself where it is there."""
    return to(input, f"cuda:{device}" if isinstance(device, int) else device or "cuda")


def float(input: Tensor) -> Tensor:
    """In float32."""
    return to(input, dtype=float32)


def double(input: Tensor) -> Tensor:
    """In float64."""
    return to(input, dtype=float64)


def half(input: Tensor) -> Tensor:
    """In float16."""
    return to(input, dtype=float16)


def bfloat16(input: Tensor) -> Tensor:
    """In bfloat16."""
    return to(input, dtype=dtypes.bfloat16())


def long(input: Tensor) -> Tensor:
    """In int64."""
    return to(input, dtype=int64)


def clone(input: Tensor) -> Tensor:
    """A copy in its own memory, through which gradients flow."""
    checks.tensors("clone", input=input)
    return Clone.apply(input)


def contiguous(input: Tensor) -> Tensor:
    """The tensor itself where its memory is in the order of new tensors or in C order, else a copy that is."""
    return input if layout.settled(input.data) is input.data else clone(input)
