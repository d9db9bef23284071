"""The lecture's benchmark: training speed of the lecture network, beside PyTorch where it is installed."""

from __future__ import annotations

from gpucnn.bench.measure import Options, measure
from gpucnn.bench.record import Record, read
from gpucnn.bench.tables import as_markdown, as_text

__all__ = ["Options", "Record", "as_markdown", "as_text", "measure", "read"]
