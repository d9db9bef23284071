"""The benchmark: speed and size of gpucnn beside PyTorch, where it is installed, and the records of both."""

from __future__ import annotations

from gpucnn.bench.record import Record, read
from gpucnn.bench.suite import Options, measure
from gpucnn.bench.tables import as_markdown, as_text
from gpucnn.bench.workload import NETWORKS

__all__ = ["NETWORKS", "Options", "Record", "as_markdown", "as_text", "measure", "read"]
