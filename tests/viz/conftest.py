"""Figures as they are saved."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Gets every figure that a test draws."""
    from matplotlib.figure import Figure

    found: list[Any] = []
    real = Figure.savefig

    def savefig(self: Any, *args: Any, **options: Any) -> None:
        found.append(self)
        real(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found
