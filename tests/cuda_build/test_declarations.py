"""Kernels' declarations are read as C++ means them, and what cannot be checked at a launch is refused with file and
line."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from gpucnn import geometry
from gpucnn.backends.declarations import DeclarationError, declarations, included_files, kernel_sources

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
HEADER = '#include "common.cuh"\n'


@pytest.fixture
def declare(tmp_path: Path):
    """Declarations of a file with this text."""

    def of(text: str) -> dict:
        (tmp_path / "k.cu").write_text(HEADER + text)
        return declarations(tmp_path / "k.cu")

    return of


def kernel(parameters: str, bounds: str = "__launch_bounds__(256) ") -> str:
    return f'extern "C" __global__ void {bounds}k({parameters}) {{ }}\n'


@pytest.mark.parametrize(
    ("text", "kind", "direction", "dtype", "alignment", "vector"),
    [
        ("IN float* __restrict__ x", "array", "in", "float32", 4, 1),
        ("OUT float4* x", "array", "out", "float32", 16, 4),
        ("INOUT unsigned char *x", "array", "inout", "uint8", 1, 1),
        ("IN unsigned long long* __restrict__ x", "array", "in", "uint64", 8, 1),
        ("IN uchar4* x", "array", "in", "uint8", 4, 4),
        ("IN int2* x", "array", "in", "int32", 8, 2),
        ("IN float16* __restrict__ x", "array", "in", "float16", 2, 1),
        ("OUT float16x2* x", "array", "out", "float16", 4, 2),
        ("INOUT float16x8* x", "array", "inout", "float16", 16, 8),
        ("IN bfloat16* x", "array", "in", BFLOAT16, 2, 1),
        ("IN bfloat16x2* x", "array", "in", BFLOAT16, 4, 2),
        ("OUT bfloat16x8* x", "array", "out", BFLOAT16, 16, 8),
        ("IN bfloat16* const* __restrict__ x", "table", "in", BFLOAT16, 2, 1),
        ("INOUT float* const* __restrict__ x", "table", "inout", "float32", 4, 1),
        ("IN float * const * x", "table", "in", "float32", 4, 1),
        ("int x", "scalar", None, "int32", 4, 1),
        ("const unsigned int x", "scalar", None, "uint32", 4, 1),
        ("unsigned char x", "scalar", None, "uint8", 1, 1),
        ("long long\n   x", "scalar", None, "int64", 8, 1),
        ("unsigned long long x", "scalar", None, "uint64", 8, 1),
        ("float x", "scalar", None, "float32", 4, 1),
        ("double x", "scalar", None, "float64", 8, 1),
        ("IN double* __restrict__ x", "array", "in", "float64", 8, 1),
    ],
)
def test_each_kind_of_parameter(declare, text, kind, direction, dtype, alignment, vector) -> None:
    (parameter,) = declare(kernel(text))["k"].parameters
    assert parameter.name == "x"
    assert (parameter.kind, parameter.direction, parameter.dtype) == (kind, direction, np.dtype(dtype))
    assert (parameter.alignment, parameter.vector) == (alignment, vector)
    assert parameter.restrict == ("__restrict__" in text)


def test_a_struct_has_the_layout_of_cpp(declare) -> None:
    """A double word starts at a multiple of 8 and the whole is a multiple of 8: offsets 0, 4, 8, 16, size 24."""
    text = "struct S { int a, b; float c; /* gap */ long long d; };\n" + kernel("S s")
    dtype = declare(text)["k"].parameters[0].dtype
    assert [dtype.fields[name][1] for name in dtype.names] == [0, 4, 8, 16]
    assert (dtype.itemsize, dtype.alignment) == (24, 8)


@pytest.mark.parametrize("name", ["Conv2dGeometry", "Pool2dGeometry", "AdaptivePool2dGeometry"])
def test_geometries_have_the_fields_of_the_dataclasses_in_their_order(declare, name) -> None:
    (parameter,) = declare('#include "geometry.cuh"\n' + kernel(f"{name} g"))["k"].parameters
    assert parameter.dtype.names == tuple(field.name for field in fields(getattr(geometry, name)))
    assert {parameter.dtype[field] for field in parameter.dtype.names} == {np.dtype(np.int32)}


@pytest.mark.parametrize(
    ("bounds", "threads"),
    [("", 1024), ("__launch_bounds__(64) ", 64), ("__launch_bounds__(128, 4) ", 128), ("__launch_bounds__(kT) ", 96)],
)
def test_launch_bounds(declare, bounds, threads) -> None:
    assert declare("constexpr int kT = 96;\n" + kernel("int n", bounds))["k"].max_threads == threads


def test_launch_bounds_may_stand_before_void(declare) -> None:
    assert declare('extern "C" __global__ __launch_bounds__(32) void k(int n) {}')["k"].max_threads == 32


def test_comments_and_strings_are_not_declarations(declare) -> None:
    text = '// extern "C" __global__ void a(int x) {}\n/* __global__\n */\n'
    text += kernel("int x, // the __global__ count\n int y")
    assert [p.name for p in declare(text)["k"].parameters] == ["x", "y"]


def test_the_signature_reads_as_a_declaration(declare) -> None:
    found = declare(kernel("IN float* __restrict__ x, OUT float* __restrict__ y, long long size"))["k"]
    assert found.signature == "k(in float* x, out float* y, long long size)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (kernel("float* x"), r"k.cu:2: kernel k: pointer parameter 'float\* x' must begin with IN, OUT or INOUT"),
        (kernel("const float* x"), "must begin with IN, OUT or INOUT"),
        (kernel("IN float** x"), "a table of arrays"),
        (kernel("IN short* x"), r"x points to the unknown type 'short' \(known: int, .*float4"),
        (kernel("short x"), "has the unknown type 'short'"),
        (kernel("Unknown g"), "has the unknown type 'Unknown'"),
        (
            "struct S { int a; float* p; };\n" + kernel("S s"),
            r"k.cu:3: .*S may hold only scalars, not `float\* p`",
        ),
        (kernel("int n", "__launch_bounds__(THREADS) "), r"__launch_bounds__\(THREADS\) must begin with a number"),
        (kernel("int n", "__launch_bounds__(2048) "), "from 1 to 1024"),
        (kernel("int n") + kernel("int m"), "k.cu:3: kernel k is declared twice"),
        ("#define KERNEL(n) __global__ void n(int x)\n", "k.cu:2: a kernel is declared literally"),
        ("__global__ void k(int x) {}", "a kernel is declared literally"),
        ('#include "absent.cuh"\n', 'k.cu includes "absent.cuh"'),
    ],
)
def test_what_cannot_be_checked_is_refused(declare, text, message) -> None:
    with pytest.raises(DeclarationError, match=message):
        declare(text)


def test_a_changed_header_is_read_again(tmp_path: Path) -> None:
    header, source = tmp_path / "sizes.cuh", tmp_path / "k.cu"
    source.write_text(HEADER + '#include "sizes.cuh"\n' + kernel("S s"))
    header.write_text("struct S { int a; };")
    assert declarations(source)["k"].parameters[0].dtype.itemsize == 4
    header.write_text("struct S { int a, b; };")
    os.utime(header, ns=(1, 1))  # a clock too coarse to tell the two writes apart must not matter here
    assert declarations(source)["k"].parameters[0].dtype.itemsize == 8


def test_a_missing_file_names_those_that_are_there() -> None:
    with pytest.raises(FileNotFoundError, match=r"no kernel file nothing\.cu in .*, which has .*relu\.cu"):
        declarations("nothing.cu")


def test_every_kernel_of_the_package_is_declared_as_agreed() -> None:
    names = [name for source in kernel_sources() for name in declarations(source)]
    assert len(names) > 20
    assert len(names) == len(set(names)), "two files declare a kernel of the same name"
    for source in kernel_sources():
        assert source in included_files(source)
        for found in declarations(source).values():
            assert found.source == source
            assert any(p.written for p in found.parameters), f"{found.name} writes nothing"
