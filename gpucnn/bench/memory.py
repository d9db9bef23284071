"""Peak memory of training: each contestant in a process of its own that does nothing else.

It prints its peak resident size after training steps on synthetic batches. The workload comes as JSON: PyTorch's
process imports NumPy and ``gpucnn`` besides PyTorch (25 MiB), but not what trains in gpucnn.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gpucnn.bench.contestants import Contestant, synthetic_batches
from gpucnn.bench.sections import Memory, MemoryResult
from gpucnn.bench.workload import Workload

STEPS = 3


def measure(workload: Workload, measured: Sequence[Contestant], batch_size: int) -> Memory:
    """Everybody's peak at a batch size."""
    results = tuple(
        MemoryResult(who.framework, who.layout, who.device, peak_memory(workload, who, batch_size)) for who in measured
    )
    return Memory(workload.network, batch_size, results)


def peak_memory(workload: Workload, contestant: Contestant, batch_size: int) -> int:
    """Peak resident size in bytes of a process that takes a few training steps. Raises RuntimeError where it fails."""
    arguments = [contestant.framework, contestant.device, contestant.layout, str(batch_size), workload.to_json()]
    done = subprocess.run(
        [sys.executable, "-c", "from gpucnn.bench import memory; memory.main()", *arguments],
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"bench: the memory measurement of {contestant.framework} failed: {last}")
    return int(done.stdout)


def main() -> None:
    """The process: the command line's contestant trains, and the peak resident size in bytes is printed."""
    framework, device, layout, batch_size, workload = sys.argv[1:]
    print(train(Contestant(framework, device, layout), int(batch_size), Workload.from_json(workload)))


def train(contestant: Contestant, batch_size: int, workload: Workload) -> int:
    """A few steps; the peak resident size in bytes."""
    trainer = contestant.trainer(workload)
    batches = itertools.islice(itertools.cycle(synthetic_batches(workload, batch_size)), STEPS)
    if not trainer.takes_arrays:
        from gpucnn import tensor

        place = contestant.device
        batches = ((tensor(images, device=place), tensor(labels, device=place)) for images, labels in batches)  # type: ignore[assignment]
    for images, labels in batches:
        trainer.step(images, labels)
    trainer.synchronize()
    return peak_resident_size()


def peak_resident_size() -> int:
    """The largest resident size of this process so far, in bytes. Raises RuntimeError on Windows.

    Linux's ru_maxrss is no less than the parent's size when it started this process, so VmHWM is read in its place.
    """
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)[0]) * 1024
    if sys.platform == "win32":
        raise RuntimeError("peak memory is measured on Linux and macOS only")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
