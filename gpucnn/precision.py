"""In what precision convolutions and matrix products compute: ``with gpucnn.precision("bfloat16"):``.

On GPUs (and on the emulator) ``conv2d``, ``linear`` and ``matmul`` round float32 tensors to float16 or bfloat16 under
these precisions, for the tensor cores, which add in float32; what comes out is of the half type. Weights stay float32
leaves: their rounded copies are kept (:mod:`gpucnn.functional.half_weights`), and their gradients are float32. All
other operators compute in the dtype that they are given, with float32 inside. ``"tf32"`` keeps float32 tensors and lets
the tensor cores round their inputs to 10 bits of mantissa. On ``cpu`` every precision computes in float32.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

from gpucnn import backends, dtypes
from gpucnn.device import Device

HALF = ("float16", "bfloat16")
PRECISIONS = ("float32", "tf32", *HALF)


class _Policy(threading.local):
    name = "float32"


_policy = _Policy()


def get_precision() -> str:
    """The precision in force in this thread: "float32", "tf32", "float16" or "bfloat16"."""
    return _policy.name


class precision:
    """Within it convolutions and matrix products of this thread compute in the precision ``name``.

    A context manager and a decorator; an inner one takes the outer's place. Backward computes as its forward did,
    wherever it is called. Raises ValueError for an unknown name; an operator raises ValueError on a GPU that lacks it.

    >>> import gpucnn
    >>> with gpucnn.precision("bfloat16"):
    ...     gpucnn.get_precision()
    'bfloat16'
    >>> gpucnn.get_precision()
    'float32'
    """

    def __init__(self, name: str) -> None:
        if name not in PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(map(repr, PRECISIONS))}, got {name!r}")
        self.name = name
        self._before: list[str] = []  # a stack, so that one object may be entered again within itself

    def __enter__(self) -> None:
        self._before.append(_policy.name)
        _policy.name = self.name

    def __exit__(self, *exception: object) -> None:
        _policy.name = self._before.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
            # Its body runs after the call has returned, in the precision of that moment.
            raise TypeError(f"precision: {function.__name__} is suspended as it runs; use 'with' inside it")

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)(self.name):
                return function(*args, **kwargs)

        return wrapped


def require(name: str, device: Device, operator: str = "precision") -> None:
    """Raises ValueError, naming the device and what it has, unless it computes in the precision ``name``."""
    backend = backends.get(device)
    if name not in backend.precisions:
        has = ", ".join(one for one in PRECISIONS if one in backend.precisions)
        raise ValueError(
            f"{operator}: {device} {_described(backend)}does not compute in {name}, it has {has};"
            " float16 needs sm_75, tf32 and bfloat16 sm_80"
        )


def _described(backend: Any) -> str:
    capability = getattr(backend, "capability", None)
    if capability is None:
        return ""
    if backend.name == "emulated":
        return f"(standing for sm_{capability}) "
    from gpucnn.backends.cuda import driver

    return f"({driver.devices()[backend.engine.index].name}, sm_{capability}) "


def half_dtype(device: Device, operator: str) -> Any:
    """The dtype that the policy rounds inputs to on ``device``, None where it leaves them as they are."""
    if _policy.name == "float32" or device.type == "cpu":
        return None
    require(_policy.name, device, operator)
    if _policy.name == "tf32":
        return None
    return dtypes.as_dtype(_policy.name)


def uses_tf32(device: Device) -> bool:
    """Whether float32 products may go through tensor cores on ``device``."""
    return _policy.name == "tf32" and device.type != "cpu"
