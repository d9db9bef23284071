"""Modules in a row, and modules in a list."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload

from gpucnn.nn.module import Module

L = TypeVar("L", bound="_Indexed")


class _Indexed(Module):
    """What Sequential and ModuleList share: children numbered from 0, addressed like a list's."""

    def _key(self, index: int) -> str:
        index = operator.index(index)
        count = len(self._modules)
        if not -count <= index < count:
            raise IndexError(f"{type(self).__name__}: index {index} is out of range for {count} modules")
        return list(self._modules)[index]

    def _renumber(self, modules: Iterable[Module]) -> None:
        self._modules.clear()
        for i, module in enumerate(modules):
            self.add_module(str(i), module)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self._modules.values()))

    def __setitem__(self, index: int, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: expected a Module, got {type(module).__name__}")
        self._modules[self._key(index)] = module

    def __delitem__(self, index: int | slice) -> None:
        keys = list(self._modules)[index] if isinstance(index, slice) else [self._key(index)]
        for key in keys:
            del self._modules[key]
        if all(key.isdecimal() for key in self._modules):  # names that somebody gave stay
            self._renumber(list(self._modules.values()))

    def append(self: L, module: Module) -> L:
        """Adds a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self: L, modules: Iterable[Module]) -> L:
        """Adds modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self: L, index: int, module: Module) -> L:
        """Adds a module before ``index``; modules with given names cannot be renumbered and raise ValueError."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: expected a Module, got {type(module).__name__}")
        if not all(key.isdecimal() for key in self._modules):
            raise ValueError(
                f"{type(self).__name__}: cannot insert between modules with given names {list(self._modules)}"
            )
        modules = list(self)
        modules.insert(index, module)
        self._renumber(modules)
        return self


class Sequential(_Indexed):
    """Modules that feed one another: ``Sequential(a, b, c)`` or ``Sequential(OrderedDict(conv=a, relu=b))``.

    ``s[0]``, ``s[-1]`` are modules, ``s[1:3]`` is a Sequential of the same modules.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = list(modules[0].items())
        else:
            named = [(str(i), module) for i, module in enumerate(modules)]  # type: ignore[misc]
        for name, module in named:
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: {name!r} must be a Module, got {type(module).__name__}")
            self.add_module(name, module)

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            return type(self)(dict(list(self._modules.items())[index]))
        return self._modules[self._key(index)]

    def forward(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input


class ModuleList(_Indexed):
    """A list whose modules are registered; it computes nothing itself."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...
    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return self._modules[self._key(index)]

    def __repr__(self) -> str:
        """Neighbours that look alike in one line, as PyTorch prints them: ``(0-3): 4 x ReLU()``."""
        runs: list[tuple[int, int, str]] = []
        for i, module in enumerate(self):
            text = repr(module)
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], i, text)
            else:
                runs.append((i, i, text))
        if not runs:
            return f"{type(self).__name__}()"
        lines = []
        for first, last, text in runs:
            text = text.replace("\n", "\n  ")
            lines.append(f"({first}): {text}" if first == last else f"({first}-{last}): {last - first + 1} x {text}")
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"
