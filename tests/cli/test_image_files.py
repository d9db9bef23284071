"""Image files of every kind become what a network takes, and one line says what was done to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpucnn.cli import images
from gpucnn.cli.output import Output
from gpucnn.data.pictures import ORIENTATION
from tests.cli.conftest import Done

SIDE = 16
PIXELS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def opened(path: Path, capfd: pytest.CaptureFixture[str], grey: bool = False) -> tuple[np.ndarray, str]:
    """The image, and what was said of it."""
    capfd.readouterr()
    pixels = images.open_image(path, SIDE, grey, Output())
    told = capfd.readouterr().out
    assert told.count("\n") <= 1
    return pixels, told.removeprefix(f"{path}: ").strip()


def test_an_image_of_the_right_kind_is_taken_as_it_is(tmp_path, capfd):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    pixels, told = opened(tmp_path / "a.png", capfd)
    assert (pixels == PIXELS).all()
    assert told == ""


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr"])
def test_other_modes_are_converted(tmp_path, capfd, mode):
    suffix = "tiff" if mode in ("CMYK", "YCbCr") else "png"
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / f"a.{suffix}")
    pixels, told = opened(tmp_path / f"a.{suffix}", capfd)
    assert pixels.shape == (SIDE, SIDE, 3)
    assert told == f"converted from {mode} to RGB"
    if mode == "CMYK":
        assert np.abs(pixels.astype(int) - PIXELS).max() <= 1


def test_colour_becomes_grey_for_a_network_that_takes_grey(tmp_path, capfd):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    pixels, told = opened(tmp_path / "a.png", capfd, grey=True)
    assert pixels.shape == (SIDE, SIDE, 1)
    assert told == "converted from RGB to L"
    weighted = PIXELS @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert np.abs(pixels[:, :, 0] - weighted).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(tmp_path, capfd, mode):
    colours = np.dstack([PIXELS, np.full((SIDE, SIDE), 255, np.uint8)])
    colours[:4, :, 3] = 0
    colours[:4, :, :3] = 0  # black, where nobody sees it
    picture = Image.fromarray(colours)
    if mode == "P":
        picture = picture.quantize(64)
    elif mode == "LA":
        picture = picture.convert("LA")
    picture.save(tmp_path / "a.png")
    pixels, told = opened(tmp_path / "a.png", capfd)
    assert (pixels[:4] == 255).all()
    assert not (pixels[4:] == 255).all()
    assert told == f"converted from {mode} to RGB"


def test_half_transparent_parts_are_mixed_with_white(tmp_path, capfd):
    colours = np.dstack([PIXELS, np.full((SIDE, SIDE), 51, np.uint8)])  # a fifth
    Image.fromarray(colours).save(tmp_path / "a.png")
    pixels, _ = opened(tmp_path / "a.png", capfd)
    assert np.abs(pixels - (0.2 * PIXELS + 0.8 * 255)).max() <= 1


def test_sixteen_bits_become_eight(tmp_path, capfd):
    grey = PIXELS[:, :, 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "a.png")
    pixels, told = opened(tmp_path / "a.png", capfd, grey=True)
    assert (pixels[:, :, 0] == grey).all()
    assert told.startswith("converted from I;16")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_its_exif_says(tmp_path, capfd, orientation):
    """Where EXIF says that the stored rows and columns are (its standard's table of orientations)."""
    upright = PIXELS
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    pixels, told = opened(tmp_path / "a.png", capfd)
    assert (pixels == upright).all()
    assert told.startswith("turned upright (") is (orientation > 1)


def test_of_an_animation_the_first_frame_is_taken(tmp_path, capfd):
    flat = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    flat[0].save(tmp_path / "a.gif", save_all=True, append_images=flat[1:])
    pixels, told = opened(tmp_path / "a.gif", capfd)
    assert pixels[3, 3].tolist() == [255, 0, 0]
    assert told == "the first of its frames taken and converted from P to RGB"


@pytest.mark.parametrize(("width", "height"), [(64, 32), (32, 64), (5, 90), (16, 400)])
def test_the_shorter_side_is_scaled_and_the_middle_cut_out(tmp_path, capfd, width, height):
    """A picture that is red at its ends and blue in its middle square is blue."""
    picture = Image.new("RGB", (width, height), "red")
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    picture.paste("blue", (left - 2, top - 2, left + side + 2, top + side + 2))
    picture.save(tmp_path / "a.png")
    pixels, told = opened(tmp_path / "a.png", capfd)
    assert told == f"resized and centre-cropped from {width}x{height} to {SIDE}x{SIDE}"
    assert pixels[SIDE // 2, SIDE // 2].tolist() == [0, 0, 255]
    assert (pixels[:, :, 2] > 200).all()


def test_everything_that_was_done_is_said_in_one_line(tmp_path, capfd):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("CMYK", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    _, told = opened(tmp_path / "a.jpg", capfd)
    assert told == (
        "turned upright (a quarter turn, says its EXIF), resized and centre-cropped from 40x30 to 16x16 and converted"
        " from CMYK to RGB"
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(20), b"\xff\xd8\xff\xe0" + bytes(40), b"BM" + bytes(60)],
)
def test_what_is_no_image_is_an_error_that_names_the_file(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png: not an image that can be read"):
        images.open_image(tmp_path / "a.png", SIDE, False, Output())


def test_a_set_has_one_name_however_it_is_written():
    assert [images.set_name(name) for name in ("CIFAR-10", "fashion-mnist", "MNIST", "folder:a", "")] == [
        "cifar10", "fashion_mnist", "mnist", "folder:a", "",
    ]  # fmt: skip


def test_predict_sees_a_folders_pictures_as_training_did(gpucnn: Callable[..., Done], tmp_path: Path) -> None:
    """The lecture network takes 24x24 out of 32x32, not a picture that was made smaller."""
    from gpucnn import data, training
    from gpucnn.training.predictions import predict

    rng = np.random.default_rng(3)
    for part, count in (("train", 4), ("test", 2)):
        for kind in ("cat", "eel fish"):
            (tmp_path / "set" / part / kind).mkdir(parents=True)
            for i in range(count):
                image = Image.fromarray(rng.integers(0, 256, (48, 60, 3), dtype=np.uint8))
                image.save(tmp_path / "set" / part / kind / f"{i}.png")
    name = f"folder:{tmp_path / 'set'}"
    assert gpucnn("train", "--data", name, "--batch-size", 4, "--epochs", 1, "--lr", 0.5, "--out", "run").code == 0
    files = sorted((tmp_path / "set" / "test").glob("*/*.png"))
    told = gpucnn("predict", *files, "--run", "run", "--top", 2, "--quiet").out.splitlines()
    loaded = training.load_run("run")
    rows = predict(loaded.model, loaded.test_loader(data.create(name, train=False))).probabilities
    for line, row in zip(told, rows, strict=True):
        likeliest = ", ".join(f"{loaded.classes[i]} {row[i]:.1%}" for i in np.argsort(-row))
        assert line.endswith(f": {likeliest}")


def test_a_bad_file_among_many_is_reported_and_the_rest_predicted(
    gpucnn: Callable[..., Done], run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpucnn.cli import inference

    monkeypatch.setattr(inference, "BATCH", 2)
    files = [tmp_path / f"{i}.png" for i in range(6)]
    for file in files:
        Image.fromarray(PIXELS).resize((32, 32)).save(file)
    for bad in (files[0], files[2], files[3]):  # the third and fourth are a batch of their own
        bad.write_text("no image")
    told = gpucnn("predict", *files, "--run", run_folder)
    assert told.code == 2
    assert [line.split(": ")[1] for line in told.err.splitlines()] == [str(files[i]) for i in (0, 2, 3)]
    assert [line.split(": ")[0] for line in told.out.splitlines()] == [str(files[i]) for i in (1, 4, 5)]
