"""``gpucnn.save`` and ``gpucnn.load``: round trips, damage of every kind, and writing that never leaves half a file."""

from __future__ import annotations

import json
import math
import os
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import gpucnn
from gpucnn import models, serialization


def same(a: Any, b: Any) -> bool:
    """Equal in type, order, dtype, shape and every bit."""
    if isinstance(a, gpucnn.Tensor):
        return isinstance(b, gpucnn.Tensor) and a.device == b.device and same(a.numpy(), b.numpy())
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and a == b


def round_trip(value: Any, path: Path) -> Any:
    gpucnn.save(value, path)
    return gpucnn.load(path, device="cpu")


VALUES = [
    None,
    True,
    -(2**70),
    0.1,
    -0.0,
    math.nan,
    -math.inf,
    "naïve \ud800 \x00 text",
    [],
    {},
    [1, (2, [3.5, None]), {"a": ()}],
    {"": 1, "a/b": 2, "a~b": 3, 1: 4, "1": 5},
    np.zeros((0, 3), np.float32),
    np.array(3.25),
    np.array([True, False]),
    np.arange(-3, 3, dtype=np.int8),
    np.array([2**64 - 1], dtype=np.uint64),
    np.array([np.nan, -0.0, np.inf], dtype=np.float16),
    np.arange(24.0).reshape(2, 3, 4),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
def test_values_come_back_as_they_were(value: Any, tmp_path: Path) -> None:
    for each in (value, {"inside": [value]}):
        assert same(round_trip(each, tmp_path / "file"), each)


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for array in (
        rng.standard_normal((2, 3, 4, 5)),
        rng.standard_normal((3, 2)).astype(np.float32),
        np.arange(4),
        np.array(2.0),
    ):
        tensor = gpucnn.tensor(array, device="cpu")
        back = round_trip({"t": tensor}, tmp_path / "file")["t"]
        assert same(back, tensor) and back.data.strides == tensor.data.strides
        assert not back.requires_grad


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a.transpose(0, 3, 1, 2),
        lambda a: a[::2, :, ::-1],
        lambda a: np.asfortranarray(a),
        lambda a: a.astype(">f8"),
        lambda a: np.broadcast_to(a[:1], a.shape),
    ],
)
def test_strided_and_foreign_arrays_keep_their_values(make: Callable[[np.ndarray], np.ndarray], tmp_path: Path) -> None:
    array = make(np.random.default_rng(1).standard_normal((3, 4, 5, 6)))
    back = round_trip([array], tmp_path / "file")[0]
    assert np.array_equal(back, array) and back.dtype == np.float64 and back.flags.c_contiguous
    back[0] = 1.0  # a copy of one's own


def test_other_readers_find_a_state_dict_by_its_names_in_nchw(tmp_path: Path) -> None:
    model = models.lenet5(device="cpu")
    gpucnn.save(model.state_dict(), tmp_path / "lenet.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "lenet.safetensors")
    assert set(arrays) == set(model.state_dict())
    for name, value in model.state_dict().items():
        assert np.array_equal(arrays[name], value.numpy())


def test_nested_names_are_json_pointers(tmp_path: Path) -> None:
    arrays = {
        "m": [{"a/b": np.array([1]), "c~d": np.array([2])}],
        "__metadata__": np.array([3]),
        1: np.array([4]),
        "1": np.array([5]),
    }
    gpucnn.save(arrays, tmp_path / "file")
    names = safetensors.numpy.load_file(tmp_path / "file")
    assert {"m/0/a~1b", "m/0/c~0d", "1"} <= set(names) and len(names) == 5
    assert same(gpucnn.load(tmp_path / "file"), arrays)


def test_files_of_other_programs_give_a_dict_of_tensors(tmp_path: Path) -> None:
    array = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    for metadata in (None, {"format": "pt"}):
        safetensors.numpy.save_file({"conv.weight": array}, tmp_path / "file", metadata=metadata)
        back = gpucnn.load(tmp_path / "file", device="cpu")
        assert list(back) == ["conv.weight"] and same(back["conv.weight"], gpucnn.tensor(array, device="cpu"))


def test_a_checkpoint_of_a_run_goes_round(tmp_path: Path) -> None:
    model = models.lenet5(device="cpu")
    optimizer = gpucnn.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(gpucnn.randn(2, 1, 28, 28, device="cpu")).sum().backward()
    optimizer.step()
    checkpoint = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": gpucnn.random.default_generator.state_dict(),
    }
    assert same(round_trip(checkpoint, tmp_path / "run.safetensors"), checkpoint)


def test_equal_values_make_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        gpucnn.save({"x": np.arange(5), "y": [np.zeros(2), 1.5]}, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_subclasses_and_numpy_scalars_become_plain(tmp_path: Path) -> None:
    value = OrderedDict(
        a=np.float32(0.5), b=np.int64(3), c=np.bool_(True), d=gpucnn.random.Purpose.INIT, e=np.str_("s")
    )
    assert same(
        round_trip(value, tmp_path / "file"),
        {"a": 0.5, "b": 3, "c": True, "d": int(gpucnn.random.Purpose.INIT), "e": "s"},
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, {2, 3}]}, "the value at 'a' / '1' is of type set"),
        (object(), "the value is of type object"),
        ({("a", 1): 2}, r"the key \('a', 1\)"),
        ({True: 2}, "the key True"),
        ({"z": np.array([1j])}, "the value at 'z' has dtype complex128"),
        ({"z": np.array(["text"])}, "has dtype <U4"),
        ({"z": np.array([object()])}, "has dtype object"),
        ([b"bytes"], "of type bytes"),
    ],
)
def test_what_cannot_be_saved_is_named_and_nothing_written(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=message):
        gpucnn.save(value, tmp_path / "file")
    assert os.listdir(tmp_path) == []


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.safetensors"
    gpucnn.save(
        {"weights": {"w": np.arange(10, dtype=np.float32), "n": 3}, "lr": 0.1, "flags": [True, np.array([1, 2])]}, path
    )
    return path


def refused(path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        gpucnn.load(path, device="cpu")
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_a_file_cut_off_anywhere_is_refused(whole: Path) -> None:
    data = whole.read_bytes()
    for length in range(len(data)):
        whole.write_bytes(data[:length])
        assert "damaged, or not a safetensors file" in refused(whole)
    whole.write_bytes(data + b"\0")
    refused(whole)


def test_a_file_with_any_one_byte_changed_is_refused(whole: Path) -> None:
    data = whole.read_bytes()
    for position in range(len(data)):
        for flip in (0x01, 0x20, 0x80):
            changed = bytearray(data)
            changed[position] ^= flip
            whole.write_bytes(bytes(changed))
            try:
                value = gpucnn.load(whole, device="cpu")
            except ValueError as error:
                assert str(error).startswith(f"{whole}: ")
            else:
                pytest.fail(f"byte {position} of {len(data)} changed by {flip:#x} went unnoticed: {value}")


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(100), b"{}", bytes(64), b"\xff" * 64]
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert "not a safetensors file" in refused(path)


def rewrite(path: Path, change: Callable[[dict], None], fix: bool = True) -> None:
    """Changes the JSON that gpucnn keeps in a file, its checksum made right again."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    own = json.loads(header["__metadata__"]["gpucnn"])
    change(own)
    if fix and "tree" in own:
        own["crc32"] = serialization.zlib.crc32(json.dumps(own["tree"], separators=(",", ":")).encode())
    header["__metadata__"]["gpucnn"] = json.dumps(own)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def test_the_rewriting_of_these_tests_is_right(whole: Path) -> None:
    before = gpucnn.load(whole, device="cpu")
    rewrite(whole, lambda own: None)
    assert same(gpucnn.load(whole, device="cpu"), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own.update(version=2), "written in format 2 by a newer gpucnn; this one reads up to format 1"),
        (lambda own: own.update(version=0), "format version 0"),
        (lambda own: own.update(version="1"), "format version '1'"),
        (lambda own: own.pop("version"), "structure cannot be read"),
        (lambda own: own.pop("tree"), "structure cannot be read"),
        (lambda own: own.update(tree={"set": []}), "unknown kind 'set'"),
        (lambda own: own.update(tree={}), "structure cannot be read"),
        (lambda own: own.update(tree={"dict": [["a"]]}), "structure cannot be read"),
        (lambda own: own.update(tree={"dict": [[[], 1]]}), "structure cannot be read"),
        (lambda own: own.update(tree={"float": "many"}), "structure cannot be read"),
        (lambda own: own.update(tree={"list": 3}), "structure cannot be read"),
        (lambda own: own.update(tree={"array": "absent", "crc32": 0}), "array 'absent' is missing"),
        (lambda own: own.update(tree={"array": [], "crc32": 0}), "structure cannot be read"),
        (lambda own: own.update(tree=None), "holds arrays that its structure does not name"),
    ],
)
def test_a_structure_that_makes_no_sense_is_refused(change: Callable[[dict], None], message: str, whole: Path) -> None:
    rewrite(whole, change)
    assert message in refused(whole)


def test_a_structure_that_was_changed_is_refused(whole: Path) -> None:
    rewrite(whole, lambda own: own["tree"]["dict"].pop(), fix=False)
    assert "checksum of its structure" in refused(whole)


def test_a_bottomless_structure_is_refused(tmp_path: Path) -> None:
    text = '{"version":1,"crc32":0,"tree":' + '{"list":[' * 100_000 + "]}" * 100_000 + "}"
    safetensors.numpy.save_file({}, tmp_path / "file", metadata={"gpucnn": text})
    assert "structure cannot be read" in refused(tmp_path / "file")


def test_changed_data_is_named(whole: Path) -> None:
    data = bytearray(whole.read_bytes())
    data[-1] ^= 0x40
    whole.write_bytes(bytes(data))
    assert "the checksum of 'flags/1' does not match" in refused(whole) or "'weights/w'" in refused(whole)


@pytest.mark.parametrize(("old", "new"), [(b'"F32"', b'"I32"'), (b'"shape":[10]', b'"shape":[5,2]')])
def test_changed_dtypes_and_shapes_are_refused(old: bytes, new: bytes, whole: Path) -> None:
    data = whole.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = data[8 : 8 + size].replace(old, new)
    assert header != data[8 : 8 + size]
    whole.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + size :])
    assert "the checksum of 'weights/w' does not match" in refused(whole)


def test_metadata_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a": np.zeros(2)}, tmp_path / "file", metadata={"author": "x"})
    assert "none of gpucnn's" in refused(tmp_path / "file")


@pytest.mark.parametrize(("dtype", "size"), [("F8_E4M3", 1), ("F8_E5M2", 1), ("C64", 8)])
def test_arrays_of_unknown_types_are_refused(dtype: str, size: int, tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}}).encode()
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    assert "type" in refused(tmp_path / "file")


def test_the_systems_errors_come_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        gpucnn.load(tmp_path / "absent")
    with pytest.raises(IsADirectoryError):
        gpucnn.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        gpucnn.save(1, tmp_path / "absent" / "file")
    with pytest.raises(ValueError, match="'gpu' is unknown"):
        gpucnn.load(tmp_path / "absent", device="gpu")


# ---- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "interrupt"]
)
def test_a_failed_write_leaves_the_old_file_whole(
    step: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    gpucnn.save({"old": np.arange(3)}, path)
    before = path.read_bytes()

    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(serialization.os, step, fail)
    with pytest.raises(type(error)):
        gpucnn.save({"new": np.arange(1000)}, path)
    monkeypatch.undo()
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["file"]
    gpucnn.save({"new": 1}, path)
    assert gpucnn.load(path) == {"new": 1}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full exists on Linux only")
def test_a_full_disk_in_the_middle_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    gpucnn.save("old", path)
    real_open = open

    def open_full(name: Any, mode: str = "r") -> Any:
        if mode == "xb":
            real_open(name, "xb").close()
            return real_open("/dev/full", "wb")
        return real_open(name, mode)

    monkeypatch.setattr(serialization, "open", open_full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        gpucnn.save(np.zeros(100_000), path)
    monkeypatch.undo()
    assert gpucnn.load(path) == "old" and os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="devices as POSIX has them")
def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    """As /dev/null and /dev/stdout do: renaming a file over a device would take it from everybody."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        serialization.atomic_write(tmp_path / "pipe", b"whole")
        assert os.read(reader, 100) == b"whole"
    finally:
        os.close(reader)
    assert [(p.name, p.is_fifo()) for p in tmp_path.iterdir()] == [("pipe", True)]


@pytest.mark.skipif(os.name != "posix", reason="permissions and links are POSIX's")
def test_files_have_the_usual_permissions_and_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "file", tmp_path / "link"
    gpucnn.save(1, target)
    link.symlink_to(target)
    gpucnn.save(2, link)
    assert link.is_symlink() and gpucnn.load(target) == 2
    (tmp_path / "plain").write_bytes(b"")
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_data_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def traced_fsync(descriptor: int) -> None:
        events.append("sync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "sync file")
        fsync(descriptor)

    def traced_replace(source: str, target: str) -> None:
        assert os.path.dirname(source) == str(tmp_path) and os.path.getsize(source) > 0
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(serialization.os, "fsync", traced_fsync)
    monkeypatch.setattr(serialization.os, "replace", traced_replace)
    gpucnn.save([1], tmp_path / "file")
    assert events[:2] == ["sync file", "rename"] and len(events) == (3 if os.name == "posix" else 2)
