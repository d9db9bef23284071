"""A step taken apart: FLOPs as the networks' table has them, bytes as the emulator counts them, floors by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import gpucnn
from gpucnn import backends, cli, settings
from gpucnn.bench import ceilings
from gpucnn.bench.profile import Call, Profile, count, timed, together, watching
from gpucnn.bench.step import _trainer, profile_step

EMULATED = gpucnn.device("emulated")


def call(**values: object) -> Call:
    return replace(Call("conv", (2, 3), (128,), 0, "float32", 4_000_000, 1_000_000), **values)


@pytest.mark.parametrize(
    ("network", "batch", "flops"),
    [("lecture", 128, 105.3e6), pytest.param("airbench94", 64, 0.708e9, marks=pytest.mark.full)],
)
def test_flops_are_the_networks(network, batch, flops) -> None:
    """The table's figures: an example's in training, without the first layer's input gradient."""
    found = profile_step(network, batch, "float32", EMULATED)
    assert found.batch_size == batch
    of_the_network = sum(one.flops for one in found.calls if not one.kernel.startswith("muon"))
    assert of_the_network == pytest.approx(batch * flops, rel=0.005)


@pytest.mark.parametrize("precision", ["float32", pytest.param("float16", marks=pytest.mark.full)])
def test_bytes_are_those_that_kernels_touch(precision) -> None:
    """Each launch's count from its arguments against what the emulator sees its threads touch."""
    trainer, few, batches = _trainer("lecture_cnn", 3, precision, EMULATED)
    backend = backends.get(EMULATED)
    trainer.work.run(*few.make(0, 0))
    with watching(backend.launch) as seen, backend.engine.traffic() as records:
        trainer.work.run(*batches.make(0, 0))
    counted = [count(one) for one in seen]
    assert [one.kernel for one in counted] == [record.kernel for record in records]
    for one, record in zip(counted, records, strict=True):
        # Crops leave out a border, and a part of a split sum may be empty; tables of pointers are a few bytes.
        slack = 1000 + (0.25 if one.kernel.startswith("make_batch") else 0.1) * one.size
        assert one.size == pytest.approx(record.touched, abs=slack), one.kernel
    assert sum(one.size for one in counted) == pytest.approx(sum(r.touched for r in records), rel=0.02)


def test_a_recorded_step_has_the_launches_of_one_that_runs() -> None:
    trainer, few, batches = _trainer("lenet5", 4, "float32", EMULATED)
    backend = backends.get(EMULATED)
    trainer.work.run(*few.make(0, 0))
    with watching(backend.launch) as seen:
        trainer.work.run(*batches.make(0, 0))
    ran, recorded = [count(one) for one in seen], profile_step("lenet5", 4, "float32", EMULATED).calls
    assert [one.kernel for one in ran] == [one.kernel for one in recorded]
    assert [(one.grid, one.block, one.flops) for one in ran] == [(one.grid, one.block, one.flops) for one in recorded]
    # Batches of a captured step are where the device's counters say: 32 bytes.
    assert ran[1:] == list(recorded[1:]) and recorded[0].size - ran[0].size == 32


def test_floors() -> None:
    gpu = ceilings.Ceilings("GPU", 80, {"float32": 2e12, "float16": 8e12}, 1e12, "")
    assert call().floor(gpu) == 2e-6  # by arithmetic
    assert call(arithmetic="float16").floor(gpu) == 1e-6  # by memory
    found = Profile("net", 4, "float32", "emulated", (call(), call(), call(flops=0, size=500_000)))
    assert found.floor(gpu) == pytest.approx(4.5e-6)
    with pytest.raises(ValueError, match="GPU has no tf32 on tensor cores; it has float32, float16"):
        call(arithmetic="tf32").floor(gpu)


def test_instances_are_those_of_the_gpu_in_question() -> None:
    hopper = {call.kernel for call in profile_step("lecture", 64, "float16", EMULATED, 90).calls}
    ampere = {call.kernel for call in profile_step("lecture", 64, "float16", EMULATED, 80).calls}
    assert hopper != ampere
    assert backends.get(EMULATED).engine.arch == settings.emulator_arch()
    with pytest.raises(ValueError, match="bfloat16"):
        profile_step("lecture", 64, "bfloat16", EMULATED, 75)


def test_equal_launches_come_together() -> None:
    calls = [call(seconds=1.0), call(kernel="pool", flops=0), call(seconds=3.0), call(size=5)]
    assert together(calls) == [(call(seconds=2.0), 2), (calls[1], 1), (calls[3], 1)]


def test_a_launch_is_timed_by_doing_it_again() -> None:
    backend = backends.get(EMULATED)
    x = gpucnn.tensor([1.0, -1.0], device="emulated")
    with watching(backend.launch) as seen:
        gpucnn.functional.relu(x)
    with watching(backend.launch) as again:
        runs = []

        def clock(run) -> float:
            run()
            runs.append(len(again))
            return 40.0

        assert timed(seen[0], backend.launch, clock) == 2.0
    assert runs == [23] and {one.declaration.name for one in again} == {seen[0].declaration.name}


@pytest.mark.parametrize(
    ("name", "key"),
    [("NVIDIA H200", "h200"), ("NVIDIA GeForce RTX 4090", "rtx4090"), ("NVIDIA A100-SXM4-80GB", "a100"), ("t4", "t4")],
)
def test_a_gpu_by_its_name(name, key) -> None:
    assert ceilings.of(name) is ceilings.GPUS[key]


def test_the_command(tmp_path: Path, capsys) -> None:
    record, picture = tmp_path / "p.json", tmp_path / "p.png"
    arguments = ["profile", "lecture", "--batch-size", "4", "--device", "emulated", "--gpu", "h200"]
    assert cli.main([*arguments, "--json", str(record), "--plot", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "ceilings of H200" in out and "times: not measured" in out and "conv2d_fprop" in out
    written = json.loads(record.read_text())
    assert written["launches"] == len(written["calls"]) and written["flops"] == sum(
        c["flops"] for c in written["calls"]
    )
    assert all(c["seconds"] is None and c["floor_seconds"] > 0 for c in written["calls"])
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert cli.main([*arguments, "--every"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == written["launches"] + 6


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--gpu", "voodoo"], "the ceilings of 'voodoo' are not known; --gpu names one to compare with: h200"),
        (["--device", "cpu"], "the device cpu launches no kernels; --device emulated"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--precision", "float8", "--device", "emulated"], "float8"),
        (["--precision", "float16", "--gpu", "gtx1070"], "GeForce GTX 1070 has no float16 on tensor cores"),
        (["--plot", "missing/p.png", "--device", "emulated"], "missing/p.png"),
    ],
)
def test_bad_input_is_one_line(arguments, told, capsys) -> None:
    assert cli.main(["profile", "lecture", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
