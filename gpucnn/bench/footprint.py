"""What a framework costs before it computes anything: the time of its import and the room that it takes on disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from gpucnn.bench.sections import OURS, PEER, Footprint

PACKAGES = {OURS: "gpucnn", PEER: "torch"}  # by framework: the name that is imported and installed
TIMED_IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def measure(frameworks: Iterable[str], repeats: int) -> tuple[Footprint, ...]:
    """Each framework's footprint; imports take turns, a fresh interpreter each, after one that is not counted."""
    wanted = list(frameworks)
    seconds: dict[str, list[float]] = {framework: [] for framework in wanted}
    for repeat in range(-1, repeats):
        for framework in wanted:
            taken = import_seconds(PACKAGES[framework])
            if repeat >= 0:
                seconds[framework].append(round(taken, 4))
    return tuple(
        Footprint(framework, _version(PACKAGES[framework]), tuple(mine), installed_bytes(PACKAGES[framework]))
        for framework, mine in seconds.items()
    )


def import_seconds(package: str) -> float:
    """Seconds of ``import package`` in a fresh interpreter. Raises RuntimeError where it fails."""
    done = subprocess.run(
        [sys.executable, "-c", TIMED_IMPORT.format(package)], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise RuntimeError(f"bench: import {package} failed: {(done.stderr.strip().splitlines() or [''])[-1]}")
    return float(done.stdout)


def installed_bytes(distribution: str) -> int | None:
    """Bytes of the files of a distribution and of all that it needs, each distribution once; None where it is not
    installed as one.

    The interpreter, its standard library, extras and bytecode (made when a file is first imported) are left out.
    """
    try:
        return sum(file.stat().st_size for name in needed(distribution) for file in files(name))
    except metadata.PackageNotFoundError:
        return None


def needed(distribution: str) -> set[str]:
    """The names of a distribution and of all that it needs here. Raises PackageNotFoundError where one is missing."""
    from packaging.requirements import Requirement  # comes with matplotlib
    from packaging.utils import canonicalize_name

    found: set[str] = set()
    left = [distribution]
    while left:
        name = canonicalize_name(left.pop())
        if name in found:
            continue
        found.add(name)
        for requirement in map(Requirement, metadata.requires(name) or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                left.append(requirement.name)
    return found


def files(distribution: str) -> Iterator[Path]:
    """A distribution's files but for bytecode; of an editable installation the package's in the source tree."""
    installed = metadata.distribution(distribution)
    found = [Path(str(installed.locate_file(file))) for file in installed.files or ()]
    if distribution == PACKAGES[OURS] and not any(file.name == "__init__.py" for file in found):
        import gpucnn
        from gpucnn import settings

        for folder in (Path(gpucnn.__file__).parent, settings.kernels_path()):
            found += [file for file in folder.rglob("*") if "built" not in file.relative_to(folder).parts]
    return (file for file in found if file.is_file() and file.suffix != ".pyc")


def _version(package: str) -> str:
    if package == PACKAGES[OURS]:
        import gpucnn

        return gpucnn.__version__
    return metadata.version(package)
