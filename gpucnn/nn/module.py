"""The base of all layers and networks: what it owns, by name.

Names, order and behaviour are PyTorch's ``torch.nn.Module``; hooks and the saving of code are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from gpucnn import dtypes
from gpucnn.autograd import no_grad
from gpucnn.device import Device, device
from gpucnn.nn import state
from gpucnn.nn.parameter import Parameter
from gpucnn.tensor import Tensor

M = TypeVar("M", bound="Module")
T = TypeVar("T")


class Module:
    """A part of a network. Subclasses call ``super().__init__()`` first, assign parameters and modules, define
    ``forward``.

    >>> class Scale(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = Parameter([2.0])
    ...     def forward(self, x):
    ...         return x * self.factor
    """

    training: bool

    def __init__(self) -> None:
        set_plain = super().__setattr__
        set_plain("training", True)
        set_plain("_parameters", {})
        set_plain("_buffers", {})
        set_plain("_transient", set())  # names of buffers that state_dict leaves out
        set_plain("_modules", {})

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the module computes; every subclass that is called defines it."""
        raise NotImplementedError(f'{type(self).__name__} is missing the required "forward" method')

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return self.forward(*inputs, **options)

    # ---- attributes that register themselves -------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        parameters = self.__dict__.get("_parameters")
        if parameters is None:
            if isinstance(value, (Parameter, Module)):
                raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning {name!r}")
            super().__setattr__(name, value)
        elif isinstance(value, Parameter):
            self._forget(name, keep=parameters)
            self.register_parameter(name, value)
        elif name in parameters:
            if value is not None:
                raise TypeError(
                    f"cannot assign {type(value).__name__} as parameter {name!r} (gpucnn.nn.Parameter or None expected)"
                )
            parameters[name] = None
        elif isinstance(value, Module):
            self._forget(name, keep=self._modules)
            self._modules[name] = value
        elif name in self._modules:
            if value is not None:
                raise TypeError(
                    f"cannot assign {type(value).__name__} as child module {name!r} (gpucnn.nn.Module or None expected)"
                )
            self._modules[name] = None
        elif name in self._buffers:
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"cannot assign {type(value).__name__} as buffer {name!r} (gpucnn.Tensor or None expected)"
                )
            self._buffers[name] = value
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        # Reached only where ordinary look-up finds nothing.
        for store in ("_parameters", "_buffers", "_modules"):
            owned = self.__dict__.get(store)
            if owned is not None and name in owned:
                return owned[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        if not self._forget(name):
            super().__delattr__(name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def _forget(self, name: str, keep: dict[str, Any] | None = None) -> bool:
        """Takes ``name`` out of whatever holds it but ``keep``, where a new value keeps its place; says whether a store
        held it.
        """
        held = False
        for store in (self._parameters, self._buffers, self._modules):
            if store is not keep and name in store:
                held = True
                del store[name]
        if held:
            self._transient.discard(name)
        elif keep is not None:
            self.__dict__.pop(name, None)  # a plain attribute would hide what is registered
        return held

    def _check_name(self, kind: str, name: str, store: Mapping[str, Any]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} name must be a string, got {name!r}")
        if not name or "." in name:
            raise KeyError(f"{kind} name must not be empty or contain '.', got {name!r}")
        if hasattr(self, name) and name not in store:
            raise KeyError(f"attribute {name!r} already exists in {type(self).__name__}")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter; None keeps the name without a parameter (a layer made with ``bias=False``)."""
        self._check_name("parameter", name, self._parameters)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot register {type(param).__name__} as parameter {name!r} (gpucnn.nn.Parameter or None expected)"
            )
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that moves and (if ``persistent``) is saved with the module, but that no optimizer changes."""
        self._check_name("buffer", name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot register {type(tensor).__name__} as buffer {name!r} (gpucnn.Tensor or None expected)"
            )
        self._buffers[name] = tensor
        self._transient.discard(name)
        if not persistent:
            self._transient.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a child under ``name``, as assigning it to an attribute does."""
        self._check_name("module", name, self._modules)
        if module is not None and not isinstance(module, Module):
            raise TypeError(
                f"cannot register {type(module).__name__} as module {name!r} (gpucnn.nn.Module or None expected)"
            )
        self._modules[name] = module

    register_module = add_module

    # ---- walking the tree --------------------------------------------------------------------------------------------

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """This module (named ``prefix``) and all below it, parents first; each once unless ``remove_duplicate`` is
        False.
        """
        return self._walk(prefix, set() if remove_duplicate else None)

    def _walk(self, prefix: str, seen: set[int] | None) -> Iterator[tuple[str, Module]]:
        if seen is not None:
            if id(self) in seen:
                return
            seen.add(id(self))
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child._walk(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, each once."""
        seen: set[int] = set()
        for name, child in self._modules.items():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def children(self) -> Iterator[Module]:
        """The modules directly below this one, each once."""
        return (child for _, child in self.named_children())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Parameters by dotted name; a parameter that several modules share comes once."""
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Parameters, for an optimizer."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Buffers by dotted name."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Buffers."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _named(self, store: str, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix, remove_duplicate) if recurse else [(prefix, self)]:
            for name, tensor in getattr(module, store).items():
                if tensor is None or (remove_duplicate and id(tensor) in seen):
                    continue
                seen.add(id(tensor))
                yield (f"{path}.{name}" if path else name), tensor

    def get_submodule(self, target: str) -> Module:
        """The module of dotted name ``target``; "" is this one. Raises AttributeError naming the part that is not
        there.
        """
        module = self
        for part in target.split(".") if target else ():
            child = module._modules.get(part)
            if child is None:
                raise AttributeError(f"{type(module).__name__} has no submodule {part!r} (looking for {target!r})")
            module = child
        return module

    # ---- modes, devices, gradients -----------------------------------------------------------------------------------

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Calls ``fn`` on every module below and then on this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def train(self: M, mode: bool = True) -> M:
        """Training (``mode`` True) or evaluation, for all modules below too; dropout and normalisation look at it."""
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be a bool, got {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """``train(False)``."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Whether gradients of all parameters are wanted; ``requires_grad_(False)`` freezes the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets all gradients, or fills them with zeros."""
        for parameter in self.parameters():
            state.clear_grad(parameter, set_to_none)

    def to(self: M, *args: Any, device: Any = None, dtype: Any = None) -> M:
        """Moves parameters and buffers: ``to("cuda")``, ``to(np.float64)``, ``to("cpu", np.float64)``, ``to(tensor)``;
        in place.

        ``dtype`` is a floating type and leaves integer buffers as they are. Parameters keep their identity, so an
        optimizer made before still holds them. Raises TypeError for anything else than a device, a floating dtype or a
        tensor.
        """
        place, kind = _parse_to(args, device, dtype)
        with no_grad():
            for tensor in {id(t): t for t in (*self.parameters(), *self.buffers())}.values():
                state.move(tensor, place, kind)
        return self

    def cpu(self: M) -> M:
        """``to("cpu")``."""
        return self.to("cpu")

    def cuda(self: M, device: int | str | Device | None = None) -> M:
        """``to("cuda")``, or to the GPU of this number or name."""
        return self.to(f"cuda:{device}" if isinstance(device, int) else device or "cuda")

    def float(self: M) -> M:
        """``to(float32)``."""
        return self.to(dtype=np.float32)

    def double(self: M) -> M:
        """``to(float64)``; only ``cpu`` computes in it."""
        return self.to(dtype=np.float64)

    # ---- saving ------------------------------------------------------------------------------------------------------

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """Parameters and persistent buffers by dotted name, detached (not so with ``keep_vars``), sharing memory."""
        return state.collect(self, prefix, keep_vars)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> state.IncompatibleKeys:
        """Copies tensors or NumPy arrays into the parameters and buffers of the same names.

        Raises ValueError that lists every missing, unexpected (both only if ``strict``) and misshapen name at once;
        nothing is changed then. Returns ``(missing_keys, unexpected_keys)``.
        """
        return state.load(self, state_dict, strict)

    # ---- looks -------------------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What ``repr`` says of the module itself, between its brackets."""
        return ""

    def __repr__(self) -> str:
        name, extra = type(self).__name__, self.extra_repr()
        lines = [f"({key}): " + repr(child).replace("\n", "\n  ") for key, child in self._modules.items()]
        if not lines:
            return f"{name}({extra})"
        body = "\n  ".join(([extra] if extra else []) + lines)
        return f"{name}(\n  {body}\n)"


def _parse_to(args: tuple[Any, ...], place: Any, kind: Any) -> tuple[Device | None, np.dtype[Any] | None]:
    for argument in args:
        if isinstance(argument, Tensor):
            place, kind = argument.device, argument.dtype
        elif isinstance(argument, Device) or (isinstance(argument, str) and _is_device(argument)):
            place = argument
        else:
            kind = argument
    dtype = None if kind is None else dtypes.as_dtype(kind)
    if dtype is not None and not dtypes.is_floating(dtype):
        raise TypeError(f"Module.to: only floating dtypes are accepted, got {dtype}")
    return (None if place is None else device(place)), dtype


def _is_device(name: str) -> bool:
    try:
        dtypes.as_dtype(name)
    except TypeError:
        return True
    return False
