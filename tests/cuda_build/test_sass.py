"""The machine code of kernels: its reader, the tensor cores' instructions, and what the float32 GEMM's hot loop is made
of. (Every instance of the tensor cores is read in test_every_architecture.py, where it is compiled anyway.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from gpucnn.backends.cuda.compiler import compile_all
from tests.support.sass import Kernel, disassemble, read

TEXT = """\
.text.first:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   LDG.E.128.CONSTANT R8, [R2.64] ;
.L_x_0:
        /*0020*/                   FFMA R4, R8, R9, R4 ;
        /*0030*/                   FFMA R5, R8, R9, R5 ;
        /*0040*/               @P0 BRA `(.L_x_0) ;
        /*0050*/              @!P1 BRA `(.L_x_1) ;
        /*0060*/                   FFMA R5, R8, R9, R5 ;
        /*0070*/                   EXIT ;
.L_x_2:
        /*0080*/                   BRA `(.L_x_2);
        /*0090*/                   NOP;
.text.second:
        /*0000*/              @!P5 EXIT ;
"""


def test_the_reader_sees_kernels_instructions_and_loops() -> None:
    kernels = read(TEXT)
    assert list(kernels) == ["first", "second"]
    first = kernels["first"]
    assert [one.opcode for one in first.instructions[:3]] == ["MOV", "LDG.E.128.CONSTANT", "FFMA"]
    assert first.count("LDG", "128") == 1
    assert first.count("LDG", "64") == first.count("LD") == 0
    assert first.opcodes()["FFMA"] == 3
    assert [(first.instructions[a].address, first.instructions[b].address) for a, b in first.loops] == [
        (0x10, 0x50),
        (0x20, 0x40),
    ]
    assert [one.opcode for one in first.hot_loop("FFMA")] == ["FFMA", "FFMA", "BRA"]
    assert first.hot_loop("LDG") == first.instructions[1:6]
    assert kernels["second"].hot_loop("FFMA") == ()


def kernels_of(source: str | Path, architecture: str) -> dict[str, Kernel]:
    (built,) = compile_all(architecture, sources=[source]).built
    assert built.path is not None
    return disassemble(built.path)


@pytest.mark.parametrize("architecture", ["80", "90"])
def test_wrappers_become_the_tensor_cores_instructions(architecture: str) -> None:
    kernels = kernels_of(Path(__file__).parents[1] / "kernels" / "ptx.cu", architecture)
    tile = kernels["tile_f16"]
    assert tile.count("HMMA", "16816", "F32") == len([one for one in tile.hot_loop("HMMA") if one.has("HMMA")]) == 16
    assert tile.count("LDSM", "M88", "4") == 4  # of A; and of B, two matrices at a time
    assert tile.count("LDSM") == 12
    assert tile.count("LDGSTS", "BYPASS", "128") == tile.count("LDGSTS") > 0
    assert tile.count("LDL") == tile.count("STL") == 0
    assert kernels["product_m16n8k16_bf16"].count("HMMA", "16816", "F32", "BF16") == 1
    assert kernels["product_m16n8k8_tf32"].count("HMMA", "1688", "F32", "TF32") == 1
    assert kernels["product_m16n8k8_f16"].count("HMMA", "1688", "F32") == 1
    assert (
        kernels["load_x2_trans"].count("LDSM", "MT88", "2") == kernels["load_x4_trans"].count("LDSM", "MT88", "4") == 1
    )


def test_wrappers_become_hoppers_instructions() -> None:
    kernels = kernels_of(Path(__file__).parents[1] / "kernels" / "hopper.cu", "90a")
    assert kernels["product_f16_64"].count("HGMMA", "64x64x16", "F32") == 4
    assert kernels["product_bf16_256"].count("HGMMA", "64x256x16", "F32", "BF16") == 4
    columns = [one for one in kernels["product_of_columns"].instructions if one.has("HGMMA", "64x128x16")]
    assert len(columns) == 2
    assert all(".tnspA.tnspB" in one.text for one in columns)
    assert kernels["produce_and_consume"].count("UBLKCP") == 2
    for kernel in kernels.values():
        assert kernel.count("LDL") == kernel.count("STL") == 0


def test_halves_move_eight_at_a_time() -> None:
    kernels = kernels_of(Path(__file__).parents[1] / "kernels" / "half.cu", "75")
    for name in ("reverse_float16x8", "reverse_bfloat16x8"):
        assert kernels[name].count("LDG", "128") == kernels[name].count("STG", "128") == 1
        assert kernels[name].count("LDG") == kernels[name].count("STG") == 1


@pytest.mark.parametrize("source", ["gemm.cu", "conv2d_simt.cu"])
def test_the_hot_loop_of_the_float32_gemm_is_mostly_multiply_add(source: str) -> None:
    """Of the instructions that its innermost loop issues, addresses, loads and stores to shared memory included."""
    shares = {}
    for name, kernel in kernels_of(source, "80").items():
        loop = kernel.hot_loop("FFMA")
        shares[name] = sum(one.has("FFMA") for one in loop) / max(1, len(loop))
        assert kernel.count("LDL") == kernel.count("STL") == 0, name
    assert {name: share for name, share in shares.items() if share < (0.7 if "vec4" in name else 0.5)} == {}
