"""Why a GPU cannot be used is told apart: no driver, a driver that does not start, no device, no CuPy. A fake driver
answers."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from gpucnn import cuda, cupy_choice
from gpucnn.backends.cuda import driver


class FakeDriver:
    """The functions of libcuda that are asked, with ``devices`` as (name, capability)."""

    def __init__(self, init: int = 0, version: int = 12090, devices: tuple[Any, ...] = (("Test GPU", (8, 6)),)) -> None:
        self.init, self.version, self.list = init, version, devices
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cu"):
            self.calls.append(name)
        return super().__getattribute__(name)

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDriverGetVersion(self, to: Any) -> int:
        return put(to, self.version)

    def cuDeviceGetCount(self, to: Any) -> int:
        return put(to, len(self.list))

    def cuDeviceGet(self, to: Any, index: int) -> int:
        return put(to, index)

    def cuDeviceGetName(self, to: Any, size: int, device: Any) -> int:
        to.value = self.list[device.value][0].encode()[: size - 1]
        return 0

    def cuDeviceGetAttribute(self, to: Any, attribute: int, device: Any) -> int:
        return put(to, self.list[device.value][1][{75: 0, 76: 1}[attribute]])

    def cuDeviceTotalMem_v2(self, to: Any, device: Any) -> int:
        return put(to, 24 << 30)


def put(reference: Any, value: int) -> int:
    reference._obj.value = value
    return 0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A function that makes this a machine with that driver and that CuPy (a module, an exception, or None for no
    CuPy)."""

    def become(library: Any, cupy: Any = None) -> None:
        driver.query.cache_clear()
        driver.unavailable_reason.cache_clear()
        monkeypatch.setattr(driver, "_load_library", lambda: library)
        spec = None if cupy is None else types.SimpleNamespace(name="cupy")
        monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
        monkeypatch.setitem(sys.modules, "cupy", cupy if isinstance(cupy, types.ModuleType) else None)

    yield become
    monkeypatch.undo()
    driver.query.cache_clear()
    driver.unavailable_reason.cache_clear()


def fake_cupy(usable: bool) -> types.ModuleType:
    module = types.ModuleType("cupy")
    module.is_available = lambda: usable
    module.__version__ = "14.0"
    return module


def test_a_usable_gpu(machine) -> None:
    machine(FakeDriver(devices=(("Small", (6, 1)), ("Big", (9, 0)))), fake_cupy(True))
    assert driver.unavailable_reason() is None
    assert cuda.is_available()
    assert cuda.device_count() == 2
    assert cuda.get_device_name(1) == "Big"
    assert cuda.get_device_capability(0) == (6, 1)
    assert driver.query().cuda == (12, 9)
    assert driver.devices()[0].memory == 24 << 30
    with pytest.raises(RuntimeError, match=r"cuda:2 cannot be used: this process sees 2 GPU\(s\)"):
        driver.require(2)


def test_asking_makes_no_context_and_takes_no_memory(machine) -> None:
    fake = FakeDriver()
    machine(fake, fake_cupy(True))
    driver.query()
    asked = {"cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName"}
    assert set(fake.calls) == asked | {"cuDeviceGetAttribute", "cuDeviceTotalMem_v2"}


@pytest.mark.parametrize(
    ("library", "cupy", "reason"),
    [
        (None, fake_cupy(True), r"^no NVIDIA driver \(.* was not found\)$"),
        (FakeDriver(init=100), fake_cupy(True), "^no device: the NVIDIA driver is installed and finds no GPU"),
        (FakeDriver(devices=()), fake_cupy(True), "^no device: "),
        (FakeDriver(init=803), fake_cupy(True), "does not start .cuInit error 803: .*restart the machine"),
        (FakeDriver(init=34), fake_cupy(True), "a stub for linking"),
        (FakeDriver(version=11080), fake_cupy(True), r"too old \(CUDA 11\.8\): install version 525"),
        (FakeDriver(), None, r"^no CuPy: pip install 'gpucnn\[cuda12\]'$"),
        (FakeDriver(version=13000), None, r"^no CuPy: pip install 'gpucnn\[cuda13\]'$"),
        (FakeDriver(version=13000, devices=(("Old", (6, 1)),)), None, r"pip install 'gpucnn\[cuda12\]'$"),
        (FakeDriver(), "broken", r"^CuPy cannot be imported \(.*\): pip install 'gpucnn\[cuda12\]'$"),
        (FakeDriver(), fake_cupy(False), "^CuPy 14.0 finds no device though the driver lists 1$"),
    ],
)
def test_each_reason_is_told_with_what_mends_it(machine, library, cupy, reason) -> None:
    machine(library, cupy)
    text = driver.unavailable_reason()
    assert text is not None
    assert "\n" not in text
    with pytest.raises(RuntimeError, match=reason.removeprefix("^")):
        driver.require()
    import re

    assert re.search(reason, text)
    assert not cuda.is_available()
    assert cuda.device_count() == 0


def test_hidden_devices_are_named(machine, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine(FakeDriver(init=100), fake_cupy(True))
    assert "(CUDA_VISIBLE_DEVICES is '')" in (driver.unavailable_reason() or "")


def test_without_a_driver_cupy_is_not_imported() -> None:
    script = (
        "import ctypes, sys\n"
        "real = ctypes.CDLL\n"
        "def without_driver(name, *rest, **more):\n"
        "    if name and 'cuda' in str(name): raise OSError(name)\n"
        "    return real(name, *rest, **more)\n"
        "ctypes.CDLL = without_driver\n"
        "import gpucnn\n"
        "assert not gpucnn.cuda.is_available()\n"
        "assert gpucnn.cuda.memory_allocated() == gpucnn.cuda.max_memory_allocated() == 0\n"
        "gpucnn.cuda.empty_cache(); gpucnn.cuda.reset_peak_memory_stats()\n"
        "print([m for m in sys.modules if m.startswith(('cupy', 'concurrent', 'platformdirs'))])\n"
    )
    root = Path(cuda.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr == ""


def test_the_library_is_looked_for_by_its_name(monkeypatch) -> None:
    tried = []

    def missing(name: str) -> None:
        tried.append(name)
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setattr(driver.sys, "platform", "linux")
    assert driver._load_library() is None
    assert tried == ["libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"]
    monkeypatch.setattr(driver.sys, "platform", "win32")
    assert driver._load_library() is None
    assert tried[2:] == ["nvcuda.dll"]
    monkeypatch.setattr(driver.sys, "platform", "darwin")
    assert driver._load_library() is None
    assert len(tried) == 3


def test_two_cupy_wheels_are_a_problem_with_a_cure(machine, monkeypatch) -> None:
    machine(FakeDriver(), fake_cupy(True))
    monkeypatch.setattr(cupy_choice, "installed_cupy", lambda: ["cupy-cuda12x", "cupy-cuda13x"])
    (problem,) = driver.installation_problems()
    assert "cupy-cuda12x and cupy-cuda13x are installed side by side" in problem
    assert problem.endswith("pip uninstall -y cupy-cuda12x cupy-cuda13x, then pip install 'gpucnn[cuda12]'")
    monkeypatch.setattr(cupy_choice, "installed_cupy", lambda: ["cupy-cuda12x"])
    assert driver.installation_problems() == []


def test_an_old_gpu_under_cuda_13_is_a_problem(machine, monkeypatch) -> None:
    machine(FakeDriver(version=13000, devices=(("Old", (6, 1)),)), fake_cupy(True))
    monkeypatch.setattr(cupy_choice, "installed_cupy", lambda: ["cupy-cuda13x"])
    (problem,) = driver.installation_problems()
    assert "CUDA 13 does not serve Old (compute capability 6.1)" in problem
