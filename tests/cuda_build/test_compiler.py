"""NVRTC without a GPU, through a cache that survives other processes, damage and full disks."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gpucnn import cuda
from gpucnn.backends.cuda import cache as cache_module
from gpucnn.backends.cuda import compiler
from gpucnn.backends.cuda.cache import KernelCache
from gpucnn.backends.cuda.compiler import CompileError, Program, compile_all

SCALE = """
#include "factor.cuh"
extern "C" __global__ void __launch_bounds__(64) scale(const float* x, float* y) {
    y[threadIdx.x] = FACTOR * x[threadIdx.x];
}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "factor.cuh").write_text("#define FACTOR 2.0f\n")
    (tmp_path / "scale.cu").write_text(SCALE)
    return tmp_path / "scale.cu"


def test_a_source_is_compiled_once(source, empty_cache) -> None:
    (first,) = compile_all("sm_86", sources=[source], cache=empty_cache).built
    (second,) = compile_all(86, sources=[source], cache=empty_cache).built
    assert (first.cached, second.cached) == (False, True)
    assert first.seconds > 0
    assert first.path == second.path
    assert first.kernels == second.kernels
    assert set(first.kernels) == {"scale"}


def test_the_same_source_gives_the_same_cubin(source, tmp_path) -> None:
    images = []
    for name in ("a", "b"):
        (built,) = compile_all(75, sources=[source], cache=KernelCache(tmp_path / name)).built
        images.append(built.path.read_bytes())
    assert images[0] == images[1]


@pytest.mark.parametrize("what", ["source", "header", "architecture", "options", "nvrtc"])
def test_the_key_changes_with(what, source, monkeypatch) -> None:
    before = Program.read(source).cache_name("80")
    assert Program.read(source).cache_name("80") == before
    architecture = "80"
    if what == "source":
        source.write_text(SCALE + "\n")
    elif what == "header":
        (source.parent / "factor.cuh").write_text("#define FACTOR 3.0f\n")
    elif what == "architecture":
        architecture = "86"
    elif what == "options":
        monkeypatch.setattr(compiler, "OPTIONS", (*compiler.OPTIONS, "--use_fast_math"))
    else:
        monkeypatch.setattr(compiler, "nvrtc_version", lambda: "12.0")
    assert Program.read(source).cache_name(architecture) != before


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "no record", "record cut", "record of another kind"])
def test_a_damaged_entry_is_built_again(damage, source, empty_cache) -> None:
    (built,) = compile_all(80, sources=[source], cache=empty_cache).built
    good = built.path.read_bytes()
    record = built.path.with_name(built.path.name + ".json")
    if damage == "cut":
        built.path.write_bytes(good[:-100])
    elif damage == "changed":
        built.path.write_bytes(good[:500] + bytes([good[500] ^ 1]) + good[501:])
    elif damage == "empty":
        built.path.write_bytes(b"")
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text(record.read_text()[:40] if damage == "record cut" else "[1, 2]")
    (again,) = compile_all(80, sources=[source], cache=empty_cache).built
    assert not again.cached
    assert again.path.read_bytes() == good
    assert compile_all(80, sources=[source], cache=empty_cache).built[0].cached


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(cache_module.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        cache_module.write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_a_write_that_fails_because_another_process_wrote_the_same(tmp_path, monkeypatch) -> None:
    """Windows replaces no file that somebody has open."""
    cache = KernelCache(tmp_path)
    stored = cache.store("x.cubin", b"image", {"kernels": {}})

    def refuse(*_: object) -> None:
        raise PermissionError("in use")

    monkeypatch.setattr(cache_module, "write_atomically", refuse)
    assert cache.store("x.cubin", b"image", {"kernels": {}}) == stored
    with pytest.raises(OSError, match="cannot be written"):
        cache.store("y.cubin", b"image", {})


@pytest.mark.parametrize("letters", [b"aaaa", b"abcd"], ids=["the same image", "different images"])
def test_readers_beside_writers_see_whole_entries(tmp_path, letters) -> None:
    """Four writers store again and again. Of one image, as compilers of one source do, a reader always finds the whole
    entry; of different images, what it finds is whole, if it is not the image of one and the record of another, which
    counts as missing."""
    cache = KernelCache(tmp_path)
    stop = threading.Event()

    def write(letter: int) -> None:
        while not stop.is_set():
            cache.store("x.cubin", bytes([letter]) * (20000 + letter), {"letter": letter})

    write_once = letters[0]
    cache.store("x.cubin", bytes([write_once]) * (20000 + write_once), {"letter": write_once})
    writers = [threading.Thread(target=write, args=(letter,)) for letter in letters]
    for writer in writers:
        writer.start()
    try:
        entries = [cache.lookup("x.cubin") for _ in range(200)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert cache.store("x.cubin", b"a" * 20097, {"letter": 97}) == cache.lookup("x.cubin")
    found = [entry for entry in entries if entry is not None]
    assert all(entry.record["size"] == 20000 + entry.record["letter"] for entry in found)
    assert len(found) == len(entries) or len(set(letters)) > 1
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_processes_that_start_together(source, tmp_path) -> None:
    """Three processes compile the same source into the same empty cache, and each ends with a good entry."""
    script = (
        "import sys; from pathlib import Path\n"
        "from gpucnn.backends.cuda.cache import KernelCache\n"
        "from gpucnn.backends.cuda.compiler import compile_all\n"
        "(built,) = compile_all(80, sources=[sys.argv[1]], cache=KernelCache(Path(sys.argv[2]))).built\n"
        "print(built.path, len(built.kernels))\n"
    )
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "shared")]
    root = Path(cuda.__file__).parents[1]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(3)]
    answers = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(answers) == 1
    assert compile_all(80, sources=[source], cache=KernelCache(tmp_path / "shared")).built[0].cached


def test_a_cache_that_cannot_be_written_is_an_error_that_says_so(source, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CompileError, match=r"scale\.cu for sm_80: compiled kernels cannot be written.*GPUCNN_CACHE"):
        compile_all(80, sources=[source], cache=KernelCache(tmp_path / "file" / "below"))
    monkeypatch.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(CompileError, match="the folder that GPUCNN_CACHE_DIR names cannot be created"):
        compile_all(80, sources=[source])


def test_a_full_cache_may_be_read_only(source, empty_cache, monkeypatch) -> None:
    compile_all(80, sources=[source], cache=empty_cache)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(cache_module, "write_atomically", refuse)
    assert compile_all(80, sources=[source], cache=empty_cache).built[0].cached


def test_errors_carry_the_log_and_come_after_the_rest_is_built(source, empty_cache) -> None:
    wrong = source.with_name("wrong.cu")
    wrong.write_text('extern "C" __global__ void wrong(float* y) { y[0] = undefined_name; }')
    with pytest.raises(CompileError, match=r'(?s)wrong.cu for sm_80: .*wrong.cu\(1\).*"undefined_name" is undefined'):
        compile_all(80, sources=[wrong, source], cache=empty_cache, threads=1)
    assert compile_all(80, sources=[source], cache=empty_cache).built[0].cached
    report = compile_all(80, sources=[wrong], cache=empty_cache, check=False)
    assert [one.source for one in report.failed] == ["wrong.cu"]
    assert "undefined_name" in str(report)


def test_architectures_that_nvrtc_cannot_build_are_left_out_by_name(source, empty_cache) -> None:
    report = compile_all([30, "80"], sources=[source], cache=empty_cache)
    assert report.left_out == ("30",)
    assert [one.architecture for one in report.built] == ["80"]
    assert "sm_30 left out" in str(report)


@pytest.mark.parametrize("wrong", ["ampere", "sm_8", 8, "sm_80, sm_90", [80, "x"]])
def test_what_is_not_an_architecture(wrong) -> None:
    with pytest.raises(ValueError, match="compile_all: an architecture is written 80, '80' or 'sm_80', got"):
        compile_all(wrong)


@pytest.mark.parametrize(
    ("supported", "capability", "architecture"),
    [
        ([50, 61, 80, 86], (8, 6), "86"),
        ([80, 90], (9, 0), "90a"),
        ([50, 80, 86], (8, 9), "86"),  # the nearest below, of the same major: its cubins run
        ([50, 80, 86], (9, 0), "compute_86"),  # newer than NVRTC: PTX
        ([75, 80, 100, 120], (12, 1), "120"),
        ([90, 100, 101, 120], (10, 3), "100"),  # 101 is a Tegra, whose cubins run nowhere else
        ([90, 100, 120], (10, 1), "compute_100"),  # and it runs no others' cubins
        ([90, 100, 101, 103, 120], (10, 3), "103"),
        ([90, 100, 103, 120], (12, 1), "120"),
        ([90, 100, 103], (11, 0), "compute_103"),
        ([50, 60, 61], (6, 0), "60"),
        ([50, 61], (6, 0), "compute_50"),
    ],
)
def test_what_is_compiled_for_a_gpu(monkeypatch, supported, capability, architecture) -> None:
    pretend(monkeypatch, supported)
    assert compiler.architecture_of(capability) == architecture


def test_a_gpu_too_old_for_this_nvrtc_is_told_which_one_to_install(monkeypatch) -> None:
    pretend(monkeypatch, [75, 80])
    with pytest.raises(CompileError, match=r"does not compile for compute capability 6\.1: install gpucnn\[cuda12\]"):
        compiler.architecture_of((6, 1))


def pretend(monkeypatch: pytest.MonkeyPatch, supported: list[int]) -> None:
    class Nvrtc:
        @staticmethod
        def getVersion() -> tuple[int, int]:
            return 12, 9

        @staticmethod
        def getSupportedArchs() -> list[int]:
            return supported

    monkeypatch.setattr(compiler, "_nvrtc", Nvrtc)


def test_a_newer_gpu_gets_ptx(source, empty_cache) -> None:
    (built,) = compiler.build([(Program.read(source), "compute_80")], empty_cache)
    assert built.path.suffix == ".ptx"
    text = built.path.read_text()
    assert ".target sm_80" in text
    assert ".entry scale" in text


def test_the_log_of_ptxas_is_read() -> None:
    log = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'b' for 'sm_50'
ptxas info    : Function properties for b
ptxas         .     280 bytes stack frame, 276 bytes spill stores, 284 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 512+16 bytes smem, 332 bytes cmem[0]
ptxas info    : Compiling entry function 'a' for 'sm_50'
ptxas info    : Function properties for a
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 27 registers, used 0 barriers, 344 bytes cmem[0]
"""
    assert compiler.parse_usage(log) == {
        "b": compiler.KernelUsage(32, 276, 284, 512),
        "a": compiler.KernelUsage(27, 0, 0, 0),
    }
    with pytest.raises(CompileError, match="says nothing about registers"):
        compiler.parse_usage("Compiling entry function 'c' for 'sm_50'\n")


def test_spills_and_warnings_of_a_real_kernel_are_seen(tmp_path, empty_cache) -> None:
    """128 live values do not fit the 32 registers that 2048 threads on a multiprocessor leave each."""
    source = tmp_path / "k.cu"
    source.write_text(
        'extern "C" __global__ void __launch_bounds__(1024, 2) k(float* y, int n) {\n'
        "  int unused;\n  float a[128];\n"
        "  #pragma unroll\n  for (int i = 0; i < 128; i++) a[i] = y[i * n];\n"
        "  __syncthreads();\n"
        "  #pragma unroll\n  for (int i = 0; i < 128; i++) y[i * n + 1] = a[127 - i] * a[i];\n}\n"
    )
    (built,) = compile_all(61, sources=[source], cache=empty_cache).built
    assert built.kernels["k"].spill_stores > 0
    assert built.kernels["k"].spill_loads > 0
    assert len(built.warnings) == 1
    assert '"unused" was declared but never referenced' in built.warnings[0]
    (cached,) = compile_all(61, sources=[source], cache=empty_cache).built
    assert (cached.warnings, cached.kernels) == (built.warnings, built.kernels)
    assert json.loads(built.path.with_name(built.path.name + ".json").read_text())["architecture"] == "61"


def test_threads_give_what_one_thread_gives(kernels, source, tmp_path) -> None:
    images = []
    for threads in (1, 4):
        cache = KernelCache(tmp_path / str(threads))
        report = compile_all([50, 80], sources=[kernels / "values.cu", source], cache=cache, threads=threads)
        images.append([(one.source, one.architecture, one.path.read_bytes()) for one in report.built])
    assert images[0] == images[1]


def test_without_cupy_the_error_says_what_to_install(source, monkeypatch) -> None:
    monkeypatch.setattr(compiler, "_nvrtc", None)
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", None)
    with pytest.raises(CompileError, match=r"CuPy or NVRTC is missing .*pip install 'gpucnn\[cuda12\]'"):
        compile_all(80, sources=[source])


def test_the_public_function_uses_the_cache_folder(source, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GPUCNN_CACHE_DIR", str(tmp_path / "cache"))
    (built,) = cuda.compile_all("80", sources=[source]).built
    assert built.path.parent == tmp_path / "cache" / "kernels"
