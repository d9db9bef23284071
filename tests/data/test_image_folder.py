"""Image files in folders, written by the tests themselves: good ones, odd ones, damaged ones."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gpucnn import data
from gpucnn.data import DataError, ImageFolder, NotFoundError, pictures


def _save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)


def read_picture(path, height, width):
    return pictures.read_picture(path, height, width)[0]


def _plain(colour, h=8, w=8):
    return np.broadcast_to(np.array(colour, np.uint8), (h, w, 3)).copy()


@pytest.fixture
def zoo(tmp_path):
    """Two classes; names chosen so that the order of folders, and of paths, shows."""
    _save(tmp_path / "dog" / "2.png", _plain((0, 0, 20)))
    _save(tmp_path / "dog" / "10.png", _plain((0, 0, 10)))
    _save(tmp_path / "dog" / "more" / "1.png", _plain((0, 0, 30)))
    _save(tmp_path / "Cat" / "b.png", _plain((40, 0, 0)))
    _save(tmp_path / "Cat" / "a.bmp", _plain((50, 0, 0)))
    return tmp_path


def test_folders_are_classes_and_files_come_in_the_order_of_their_paths(zoo):
    dataset = ImageFolder(zoo, size=8)
    assert dataset.classes == ("Cat", "dog") and dataset.labels.tolist() == [0, 0, 1, 1, 1]
    assert dataset.images.shape == (5, 8, 8, 3) and dataset.images.dtype == np.uint8
    assert dataset.images[:2, 0, 0, 0].tolist() == [50, 40]
    assert dataset.images[2:, 0, 0, 2].tolist() == [10, 20, 30]
    assert dataset.name == f"folder:{zoo}" and dataset.source == str(zoo)


def test_hidden_files_and_what_file_managers_leave_are_skipped(zoo):
    for junk in (".DS_Store", "Cat/.hidden.png", "Cat/Thumbs.db", "dog/more/desktop.ini", "README.txt", "dog/.git/x"):
        (zoo / junk).parent.mkdir(exist_ok=True)
        (zoo / junk).write_bytes(b"junk")
    (zoo / ".cache").mkdir()
    (zoo / "__MACOSX").mkdir()
    assert len(ImageFolder(zoo)) == 5 and ImageFolder(zoo).classes == ("Cat", "dog")


def test_a_picture_is_scaled_to_cover_the_size_and_its_middle_cut_out(tmp_path):
    """Three bands of 8 columns: the middle one is what is left of 24 x 8, and its left and right of 24 x 16."""
    bands = np.repeat(np.array([[[200, 0, 0], [0, 200, 0], [0, 0, 200]]], np.uint8), 8, axis=1)
    _save(tmp_path / "wide.png", np.repeat(bands, 8, axis=0))
    assert (read_picture(tmp_path / "wide.png", 8, 8) == (0, 200, 0)).all()
    tall = np.repeat(bands, 8, axis=0).transpose(1, 0, 2)
    _save(tmp_path / "tall.png", tall)
    assert (read_picture(tmp_path / "tall.png", 8, 8) == (0, 200, 0)).all()
    assert (read_picture(tmp_path / "tall.png", 24, 8) == tall).all()
    small = read_picture(tmp_path / "wide.png", 4, 12)
    assert small.shape == (4, 12, 3)
    assert [int(small[2, column].argmax()) for column in (1, 6, 10)] == [0, 1, 2]
    large = read_picture(tmp_path / "wide.png", 16, 16)
    assert (large[:, 4:12] == (0, 200, 0)).all()
    dataset = ImageFolder(_classes(tmp_path, tall), size=(24, 8))
    assert dataset.images.shape == (1, 24, 8, 3) and (dataset.images[0] == tall).all()


def _classes(folder, pixels):
    _save(folder / "set" / "only" / "one.png", pixels)
    return folder / "set"


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (10, 20, 30, 51), (206, 208, 210)),  # a fifth of it, four fifths of white, as predict has it
        ("LA", (77, 0), (255, 255, 255)),
        ("I;16", 257 * 99, (99, 99, 99)),
    ],
)
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode, value, expected):
    Image.new(mode, (5, 5), value).save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png", 5, 5) == expected).all()


def test_palettes_jpegs_and_pictures_on_their_side(tmp_path):
    Image.fromarray(_plain((90, 60, 30))).quantize(4).save(tmp_path / "a.gif")
    assert np.abs(read_picture(tmp_path / "a.gif", 8, 8).astype(int) - (90, 60, 30)).max() <= 4
    Image.fromarray(_plain((90, 60, 30))).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_picture(tmp_path / "a.jpg", 8, 8).astype(int) - (90, 60, 30)).max() <= 8
    pixels = _plain((0, 0, 0))
    pixels[:4] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    _save(tmp_path / "b.png", pixels, exif=exif)
    assert (read_picture(tmp_path / "b.png", 8, 8) == pixels[::-1]).all()
    Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257).save(tmp_path / "c.png", exif=exif)
    assert (read_picture(tmp_path / "c.png", 8, 8) == pixels[::-1]).all()


def _png(width, height, body=b""):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("empty.png", b"", "not an image that can be read"),
        ("notes.txt", b"some notes", "not an image that can be read"),
        ("short.png", _png(8, 8, bytes(200))[:45], "not an image that can be read"),
        ("bomb.png", _png(20000, 20000), "not an image that can be read .*decompression bomb"),
        ("large.png", _png(10000, 10000), "not an image that can be read .*decompression bomb"),
        ("half.bmp", b"BM" + bytes(60), "not an image that can be read"),
    ],
    ids=["empty", "text", "short", "bomb", "large", "half"],
)
def test_a_file_that_is_no_whole_picture_is_named(zoo, name, content, problem):
    (zoo / "Cat" / name).write_bytes(content)
    with pytest.raises(DataError, match=problem) as raised:
        ImageFolder(zoo)
    assert str(zoo / "Cat" / name) in str(raised.value)


def test_a_picture_cut_off_anywhere_is_an_error_or_whole(zoo):
    _save(zoo / "Cat" / "c.png", np.random.default_rng(0).integers(0, 256, (9, 7, 3)))
    whole = (zoo / "Cat" / "c.png").read_bytes()
    expected = read_picture(zoo / "Cat" / "c.png", 9, 7)
    for length in range(0, len(whole), 7):
        (zoo / "Cat" / "c.png").write_bytes(whole[:length])
        try:
            found = read_picture(zoo / "Cat" / "c.png", 9, 7)
        except DataError as error:
            assert "c.png" in str(error)
        else:
            np.testing.assert_array_equal(found, expected)


def test_pixels_of_32_bits_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"a.tiff: .*its pixels have 32 bits; 8 or 16 are expected"):
        read_picture(tmp_path / "a.tiff", 4, 4)


def test_what_is_no_plain_file_is_not_waited_for(zoo):
    os.mkfifo(zoo / "Cat" / "c.png")
    with pytest.raises(DataError, match=r"c.png: not an image that can be read \(it is no plain file\)"):
        ImageFolder(zoo)
    (zoo / "Cat" / "c.png").unlink()
    (zoo / "Cat" / "gone.png").symlink_to(zoo / "nowhere")
    with pytest.raises(DataError, match=r"gone.png: cannot be read \(No such file"):
        ImageFolder(zoo)


def test_a_file_larger_than_any_picture_is_not_opened(zoo):
    with (zoo / "Cat" / "c.png").open("wb") as file:
        file.truncate(pictures.FILE_LIMIT + 1)  # takes no room on the disk
    with pytest.raises(DataError, match=rf"c.png: .* at most {pictures.FILE_LIMIT} bytes, found 268435457"):
        ImageFolder(zoo)


def test_postscript_is_not_run(tmp_path, monkeypatch):
    """Pillow hands it to Ghostscript, and what is in it is a program."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    Image.fromarray(_plain((1, 2, 3))).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png: not an image that can be read$"):
        read_picture(tmp_path / "a.png", 8, 8)


def test_folders_that_are_no_data_set(zoo, tmp_path):
    with pytest.raises(NotFoundError, match=r"none: cannot be read \(No such file"):
        ImageFolder(tmp_path / "none")
    with pytest.raises(DataError, match=r"more: expected a folder of pictures for each class, found no folders"):
        ImageFolder(zoo / "dog" / "more")
    (zoo / "eel").mkdir()
    (zoo / "eel" / ".hidden").write_bytes(b"")
    with pytest.raises(DataError, match=r"eel: expected pictures of this class, found none"):
        ImageFolder(zoo)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        ImageFolder(zoo, size=0)
    with pytest.raises(DataError, match=r"dog: no class is called so, expected Cat, eel"):
        ImageFolder(zoo, classes=("Cat", "eel"))


def test_links_to_folders_are_not_followed_in_circles(zoo):
    (zoo / "Cat" / "again").symlink_to(zoo / "Cat", target_is_directory=True)
    assert len(ImageFolder(zoo)) == 5


@pytest.mark.parametrize("names", [("train", "test"), ("train", "val"), ("training", "validation")])
def test_by_name_with_the_classes_of_the_training_part(tmp_path, names):
    for name, value in (("ant", 10), ("bee", 20), ("cow", 30)):
        _save(tmp_path / names[0] / name / "1.png", _plain((value, 0, 0)))
        if name != "ant":
            _save(tmp_path / names[1] / name / "1.png", _plain((value + 1, 0, 0)))
    train, test = data.find(f"folder:{tmp_path}")
    assert train.images.shape == (3, 32, 32, 3) and train.train and not test.train
    assert train.classes == test.classes == ("ant", "bee", "cow")
    assert test.labels.tolist() == [1, 2] and test.images[:, 9, 9, 0].tolist() == [21, 31]
    assert train.name == test.name == f"folder:{tmp_path}"
    assert len(data.create("folder", root=tmp_path, limit=2, size=5)) == 2
    _save(tmp_path / names[1] / "dog" / "1.png", _plain((0, 0, 0)))
    with pytest.raises(DataError, match="dog: no class is called so, expected ant, bee, cow"):
        data.create(f"folder:{tmp_path}", train=False)


def test_a_folder_without_its_parts_says_what_it_expects(zoo):
    with pytest.raises(NotFoundError, match=r"expected folders train and test .* found no train or training$"):
        data.create(f"folder:{zoo}")
    with pytest.raises(NotFoundError, match=r"none: .* found no train or training: no such folder"):
        data.create(f"folder:{zoo / 'none'}")
    with pytest.raises(NotFoundError, match="folder:PATH"):
        data.create("folder")
