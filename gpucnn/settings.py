"""What the environment says: every ``GPUCNN_*`` variable is read here, and only here, at the moment it is asked for.

``VARIABLES`` describes them all; the documentation's page and ``gpucnn doctor`` print that list. A value that makes
no sense raises ValueError, naming the variable and what it takes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable: its name, what it takes, what holds without it, and what it does."""

    name: str
    takes: str
    default: str
    meaning: str


VARIABLES = (
    Variable("GPUCNN_DEVICE", "cpu | cuda | cuda:N | emulated", "cuda where a GPU is usable, else cpu",
             "The device of tensors and commands that name none."),
    Variable("GPUCNN_COMPILE", "import | lazy", "import",
             "When CUDA kernels are compiled: the default path's while gpucnn is imported, or each when first used."),
    Variable("GPUCNN_CACHE_DIR", "a folder", "the user's cache folder",
             "Where compiled kernels and downloaded data are kept. Without it, and where the user's cache folder cannot"
             " be written, a private folder below the temporary directory serves."),
    Variable("GPUCNN_DATA", "a folder", "the user's cache folder",
             "Where data sets (CIFAR-10, MNIST) are looked for first."),
    Variable("GPUCNN_THREADS", "1 to 9999", "the processors that this process may use",
             "How many threads the cpu device uses. Results do not depend on it."),
    Variable("GPUCNN_WINOGRAD", "off | 2x2 | 4x4", "2x2",
             "Winograd's convolutions on the cpu device: none, those as exact as the others, or for 3x3 filters F(4x4),"
             " which is faster and loses a digit."),
    Variable("GPUCNN_EMULATOR", "fast | strict", "fast",
             "How the emulated device runs a kernel: in one order of threads and blocks, or in several that agree."),
    Variable("GPUCNN_EMULATOR_ARCH", "50 | 61 | 70 | 75 | 80 | 86 | 89 | 90 | 100 | 120", "80",
             "The compute capability that the emulated device stands for (80 is sm_80)."),
)  # fmt: skip

EMULATOR_ARCHITECTURES = (50, 61, 70, 75, 80, 86, 89, 90, 100, 120)


def _choice(name: str, choices: tuple[str, ...], default: str) -> str:
    value = os.environ.get(name, "").strip().lower()
    if value and value not in choices:
        raise ValueError(f"{name} must be {' or '.join(choices)}, got {os.environ[name]!r}")
    return value or default


def device() -> str | None:
    """GPUCNN_DEVICE: "cpu", "cuda", "cuda:N" or "emulated"; None where it is not set."""
    value = os.environ.get("GPUCNN_DEVICE", "").strip().lower()
    if value and not re.fullmatch(r"cpu|emulated|cuda(:\d+)?", value):
        raise ValueError(f"GPUCNN_DEVICE must be cpu, cuda, cuda:N or emulated, got {os.environ['GPUCNN_DEVICE']!r}")
    return value or None


def compile_mode() -> str:
    """GPUCNN_COMPILE: "import" (the default) or "lazy"."""
    return _choice("GPUCNN_COMPILE", ("import", "lazy"), "import")


def emulator_mode() -> str:
    """GPUCNN_EMULATOR: "fast" (the default) or "strict"."""
    return _choice("GPUCNN_EMULATOR", ("fast", "strict"), "fast")


def emulator_arch() -> int:
    """GPUCNN_EMULATOR_ARCH: 80, the default, stands for sm_80; ``__CUDA_ARCH__`` is ten times that."""
    return int(_choice("GPUCNN_EMULATOR_ARCH", tuple(map(str, EMULATOR_ARCHITECTURES)), "80"))


def threads() -> int | None:
    """GPUCNN_THREADS: a number from 1, or None where it is not set."""
    value = os.environ.get("GPUCNN_THREADS", "").strip()
    if value and (not re.fullmatch("[0-9]{1,4}", value) or int(value) == 0):
        raise ValueError(f"GPUCNN_THREADS must be a number from 1 to 9999, got {os.environ['GPUCNN_THREADS']!r}")
    return int(value) if value else None


def winograd() -> str:
    """GPUCNN_WINOGRAD: "off", "2x2" (the default) or "4x4"."""
    return _choice("GPUCNN_WINOGRAD", ("off", "2x2", "4x4"), "2x2")


def available_cores() -> int:
    """The processors that this process may use (Python 3.13 and later heed ``-X cpu_count`` too)."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def data_dir() -> Path | None:
    """GPUCNN_DATA as a path, or None. Whether the folder holds what is looked for is the reader's question."""
    value = os.environ.get("GPUCNN_DATA", "")
    return Path(value).expanduser() if value else None


def cache_dir() -> Path:
    """The folder of compiled kernels and downloads, created on first use.

    GPUCNN_CACHE_DIR names it. Otherwise it is the user's cache folder (platformdirs; ~/.cache in a checkout that is
    used without it), or, where that cannot be written, a folder of this user alone below the temporary directory; a
    warning is logged once. Raises OSError where GPUCNN_CACHE_DIR cannot be created: a folder that was asked for by
    name is not replaced by another.
    """
    named = os.environ.get("GPUCNN_CACHE_DIR", "")
    if named:
        path = Path(named).expanduser()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"the folder that GPUCNN_CACHE_DIR names cannot be created: {error}") from error
        return path.absolute()
    path = _user_cache()
    try:
        path.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.W_OK | os.X_OK):
            return path
        problem = "it is read-only"
    except OSError as error:
        problem = str(error)
    return _temporary_cache(path, problem)


def _user_cache() -> Path:
    try:
        import platformdirs
    except ImportError:
        return Path(os.path.expanduser("~")) / ".cache" / "gpucnn"
    return platformdirs.user_cache_path("gpucnn", appauthor=False)


_temporary: dict[Path, Path] = {}  # what serves instead of which unwritable folder, so that each is warned about once


def _temporary_cache(instead_of: Path, problem: str) -> Path:
    if instead_of not in _temporary or not _temporary[instead_of].is_dir():
        folder = private_temporary_folder()
        _temporary[instead_of] = folder
        log.warning(
            "the cache folder %s cannot be written (%s): %s serves instead; GPUCNN_CACHE_DIR names another",
            instead_of,
            problem,
            folder,
        )
    return _temporary[instead_of]


def private_temporary_folder() -> Path:
    """A folder below the temporary directory that only this user can enter, the same one for each of the user's
    processes.

    The temporary directory is shared: somebody else may have made the folder first, to have us load their kernels. So
    its owner, kind and mode are checked, and where they are wrong a new folder with an unguessable name is made for
    this process.
    """
    import tempfile

    user = os.getuid() if hasattr(os, "getuid") else None  # Windows: the temporary directory is the user's own
    folder = Path(tempfile.gettempdir()) / (f"gpucnn-{user}" if user is not None else "gpucnn")
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700)
    if _is_private(folder, user):
        return folder
    return Path(tempfile.mkdtemp(prefix="gpucnn-"))


def _is_private(folder: Path, user: int | None) -> bool:
    import stat

    try:
        found = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode) or not os.access(folder, os.W_OK | os.X_OK):
        return False
    return user is None or (found.st_uid == user and not found.st_mode & 0o077)


def kernels_path() -> Path:
    """The folder of the CUDA sources: ``gpucnn/kernels`` in an installed wheel, ``kernels`` beside ``gpucnn`` in the
    source tree.

    Inside the package first: in site-packages a neighbour named ``kernels`` is somebody else's. Raises
    FileNotFoundError.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "kernels", package.parent / "kernels"):
        if (folder / "common.cuh").is_file():
            return folder
    raise FileNotFoundError(
        f"the CUDA sources are missing: neither {package / 'kernels'} nor {package.parent / 'kernels'} has them"
    )
