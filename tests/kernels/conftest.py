"""The devices that run the CUDA kernels: the emulator everywhere, the GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gpucnn import backends
from gpucnn.device import device


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A CudaBackend, made the current device while the test runs."""
    found = backends.get(device(request.param))
    with found.context():
        yield found
