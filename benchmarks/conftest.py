"""Where single operators are measured, and how: see README.md in this folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import gpucnn
from gpucnn import backends, machine
from gpucnn.backends.cuda import driver


@dataclass(frozen=True)
class Place:
    """A framework on a device."""

    framework: str
    device: str

    def __str__(self) -> str:
        return f"{self.framework}-{self.device}"

    def tensor(self, array: Any, requires_grad: bool = True) -> Any:
        """A float32 array (N, C, H, W) as the framework's tensor, channels-last in both."""
        if self.framework == "gpucnn":
            return gpucnn.tensor(array, device=self.device, requires_grad=requires_grad)
        import torch

        made = torch.from_numpy(array).to(self.device)
        if made.ndim == 4:
            made = made.to(memory_format=torch.channels_last)
        return made.requires_grad_(requires_grad)

    @property
    def functional(self) -> Any:
        """The framework's operators; they have the same names and arguments."""
        if self.framework == "gpucnn":
            return gpucnn.functional
        import torch

        return torch.nn.functional

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.framework == "gpucnn":
            backends.get(gpucnn.device(self.device)).synchronize()
        elif self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize()

    def timed(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """`function`, ended when the device has done it."""

        def run() -> Any:
            value = function()
            self.synchronize()
            return value

        return run


def _places() -> list[Place]:
    devices = ["cpu", *(["cuda"] if driver.is_available() else [])]
    frameworks = ["gpucnn", *(["torch"] if importlib.util.find_spec("torch") else [])]
    return [Place(framework, device) for device in devices for framework in frameworks]


@pytest.fixture(params=_places(), ids=str)
def place(request: pytest.FixtureRequest) -> Place:
    """gpucnn and, where it is installed, PyTorch, on the CPU and, where there is one, the GPU."""
    return request.param  # type: ignore[no-any-return]


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """The record says what `gpucnn bench --json` says of the machine."""
    machine_info["gpucnn"] = machine.describe()
