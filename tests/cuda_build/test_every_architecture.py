"""Every kernel is built for every architecture: no spills, no warnings, no more registers than the committed table
says."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuda_build.registers import nvrtc_build, read_table
from gpucnn.backends.cuda.cache import KernelCache
from gpucnn.backends.cuda.compiler import ARCHITECTURES, Report, compile_all, load_nvrtc
from gpucnn.backends.declarations import declarations, kernel_sources
from tests.support.sass import disassemble

REGENERATE = "if that is meant, run: python -m tests.cuda_build.registers"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> KernelCache:
    """Empty at first, so that everything is compiled here and now."""
    return KernelCache(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def report(request: pytest.FixtureRequest, cache: KernelCache) -> Report:
    """What compile_all says of one architecture; nothing but its name in ``left_out`` where this NVRTC does not build
    it."""
    return compile_all(request.param, cache=cache, check=False)


def test_every_kernel_is_built_without_a_warning(report: Report) -> None:
    if report.left_out:
        assert int(report.left_out[0].rstrip("a")) not in load_nvrtc().getSupportedArchs()
        assert report.built == ()
        return
    assert [(one.source, one.error) for one in report.failed] == []
    assert {one.source: set(one.kernels) for one in report.built} == {
        source.name: set(declarations(source)) for source in kernel_sources()
    }
    assert [(one.source, one.warnings) for one in report.built if one.warnings] == []


def test_no_kernel_spills(report: Report) -> None:
    spilled = {
        f"{name} ({one.source}, sm_{one.architecture})": f"{usage.spills} bytes, {usage.registers} registers"
        for one in report.built
        for name, usage in one.kernels.items()
        if usage.spills
    }
    assert spilled == {}


OPERANDS = {"x", "w", "dy", "a", "b"}  # of a GEMM


def test_tensor_core_instances_use_their_instructions_and_no_local_memory(report: Report) -> None:
    """On sm_80 and 90 an operand that is declared in vectors comes by copies of 16 bytes past the registers. ldmatrix
    transposes halves only, so it gives no tf32 operand whose K is not contiguous: wgrad has none of the others."""
    for one in report.built:
        if not one.source.startswith("conv2d_mma") or one.architecture not in ("80", "90"):
            continue
        assert one.path is not None
        declared = declarations(one.source)
        for name, kernel in disassemble(one.path).items():
            where = f"{name} on sm_{one.architecture}"
            operands = [p for p in declared[name].parameters if p.direction == "in" and p.name in OPERANDS]
            assert len(operands) == 2, where
            assert kernel.count("HMMA") > 0, where
            assert (kernel.count("LDSM") > 0) == ("wgrad_tf32" not in name and "tn_tf32" not in name), where
            if all(operand.alignment == 16 for operand in operands):
                assert kernel.count("LDGSTS", "BYPASS", "128") > 0, where
            assert kernel.count("LDL") == kernel.count("STL") == 0, where


def test_wgmma_instances_use_their_instructions_and_no_local_memory(report: Report) -> None:
    for one in report.built:
        if not one.source.startswith("conv2d_wgmma") or one.architecture != "90a":
            continue
        assert one.path is not None
        for name, kernel in disassemble(one.path).items():
            loop = kernel.hot_loop("HGMMA")
            products = [instruction for instruction in loop if instruction.has("HGMMA")]
            assert len(products) >= 2, name
            # A stage is one group: a compiler that finds no way to leave the sums alone waits after each product.
            assert sum("gsb0" in one.text for one in products) == 1, name
            assert sum(instruction.has("WARPGROUP", "DEPBAR") for instruction in loop) == 1, name
            assert sum(instruction.has("LDGSTS", "BYPASS", "128") for instruction in loop) > 0, name
            assert kernel.count("HMMA") == kernel.count("LDSM") == 0, name
            assert kernel.count("LDL") == kernel.count("STL") == 0, name


def test_a_block_of_the_most_threads_finds_enough_registers(report: Report) -> None:
    """A multiprocessor has 65536 registers; a launch that asks for more fails. They are given to warps in units of 8
    a thread."""
    sources = {source.name: declarations(source) for source in kernel_sources()}
    for one in report.built:
        for name, usage in one.kernels.items():
            per_thread = -(-usage.registers // 8) * 8
            assert per_thread * sources[one.source][name].max_threads <= 65536, (name, one.architecture, usage)


def test_no_kernel_takes_more_registers_than_the_table_says(report: Report) -> None:
    """The numbers move with NVRTC's version, so the table binds the version that it was made with, which the tests
    install."""
    table = read_table()
    bound = nvrtc_build() == table["nvrtc"]
    above = {}
    for one in report.built:
        for name, usage in one.kernels.items():
            allowed = table["registers"].get(one.source, {}).get(name, {}).get(one.architecture)
            if allowed is None or (bound and usage.registers > allowed):
                above[f"{name} ({one.source}, sm_{one.architecture})"] = f"{usage.registers}, the table says {allowed}"
    assert above == {}, REGENERATE


def test_the_table_names_no_kernel_that_is_gone() -> None:
    have = {source.name: set(declarations(source)) for source in kernel_sources()}
    listed = {source: set(kernels) for source, kernels in read_table()["registers"].items()}
    assert listed == have, REGENERATE


def test_a_cubin_is_a_whole_elf_file(cache: KernelCache) -> None:
    """CuPy's binding drops a cubin's last byte: an ELF file ends with its tables, so the end of the last one must be
    there."""
    source = Path(__file__).parent / "kernels" / "values.cu"
    (built,) = compile_all(90, sources=[source], cache=cache).built
    assert built.path is not None
    image = built.path.read_bytes()
    ends = []
    for offset_at, size_at in ((0x20, 0x36), (0x28, 0x3A)):  # program headers and section headers in ELF64's header
        offset = int.from_bytes(image[offset_at : offset_at + 8], "little")
        size, count = (int.from_bytes(image[at : at + 2], "little") for at in (size_at, size_at + 2))
        ends.append(offset + size * count)
    assert image[:4] == b"\x7fELF"
    assert len(image) == max(ends)
