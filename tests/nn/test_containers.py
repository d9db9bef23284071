"""Modules in a row and in a list."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

import gpucnn
from gpucnn import nn


class Add(nn.Module):
    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, x: gpucnn.Tensor) -> gpucnn.Tensor:
        return x * 10.0 + self.amount


def digits(modules: object) -> list[float]:
    return [module.amount for module in modules]  # type: ignore[attr-defined]


def test_sequential_feeds_one_module_to_the_next() -> None:
    net = nn.Sequential(Add(1), Add(2), Add(3))
    assert net(gpucnn.zeros(1, device="cpu")).item() == 123.0
    x = gpucnn.ones(2, device="cpu")
    assert nn.Sequential()(x) is x


def test_sequential_is_indexed_and_sliced_like_a_list() -> None:
    net = nn.Sequential(*(Add(i) for i in range(5)))
    assert net[-1] is net[4] and len(net) == 5 and digits(net) == [0, 1, 2, 3, 4]
    part = net[1:4:2]
    assert isinstance(part, nn.Sequential) and part[0] is net[1] and digits(part) == [1, 3]
    for index in (5, -6):
        with pytest.raises(IndexError, match="out of range for 5 modules"):
            net[index]
    net[0] = Add(9)
    assert digits(net) == [9, 1, 2, 3, 4]
    del net[1]
    assert digits(net) == [9, 2, 3, 4] and [name for name, _ in net.named_children()] == ["0", "1", "2", "3"]
    net.append(Add(7)).insert(1, Add(5)).extend([Add(8)])
    assert digits(net) == [9, 5, 2, 3, 4, 7, 8]
    with pytest.raises(TypeError, match="expected a Module, got int"):
        net[0] = 3  # type: ignore[assignment]


def test_sequential_takes_names() -> None:
    net = nn.Sequential(OrderedDict(first=Add(1), second=Add(2)))
    assert net.first is net[0] and [name for name, _ in net.named_children()] == ["first", "second"]
    assert [name for name, _ in net[1:].named_children()] == ["second"]
    del net[0]
    assert [name for name, _ in net.named_children()] == ["second"]
    with pytest.raises(ValueError, match="given names"):
        net.insert(0, Add(1))


def test_sequential_refuses_what_is_no_module() -> None:
    with pytest.raises(TypeError, match="'1' must be a Module, got function"):
        nn.Sequential(Add(1), lambda x: x)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a Module, got list"):
        nn.Sequential([Add(1)])  # type: ignore[arg-type]


def test_module_list_registers_its_modules() -> None:
    modules = nn.ModuleList([nn.Linear(2, 2, device="cpu"), nn.Linear(2, 2, device="cpu")])
    modules.append(nn.Linear(2, 1, device="cpu"))
    assert [name for name, _ in modules.named_parameters()][-1] == "2.bias" and len(modules) == 3
    assert isinstance(modules[:2], nn.ModuleList) and modules[:2][1] is modules[1]
    assert sum(1 for _ in modules) == 3
    with pytest.raises(NotImplementedError):
        modules(np.zeros(1))
