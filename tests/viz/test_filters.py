"""Filters as pictures, and the maps that a network's convolutions make of an image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import gpucnn
from gpucnn import functional as F
from gpucnn import models, nn
from gpucnn.viz import filters as drawing


def tile(axes, sheet, place: int, columns: int, height: int, width: int):
    """Tile ``place`` of a sheet, one number for each of its pixels."""
    zoom = max(1, -(-24 // min(height, width)))
    gap = max(4, height * zoom // 4)
    top = (place // columns) * (height * zoom + gap) + gap
    left = (place % columns) * (width * zoom + gap) + gap
    return np.asarray(sheet)[top : top + height * zoom : zoom, left : left + width * zoom : zoom]


def test_colour_filters_have_grey_for_zero_and_a_scale_of_their_own(tmp_path, figures):
    filters = np.random.default_rng(0).normal(size=(10, 3, 5, 4)).astype(np.float32)
    filters[3] = 0.0
    told = drawing.draw_filters(filters, tmp_path / "filters.png", "a network")
    assert told == "10 filters of 5x4, colour"
    (axes,) = figures[0].axes
    for place in (0, 7, 9):
        expected = 0.5 + filters[place].transpose(1, 2, 0) / (2 * np.abs(filters[place]).max())
        assert tile(axes, axes.images[0].get_array(), place, 8, 5, 4) == pytest.approx(expected, abs=1e-6)
    assert (tile(axes, axes.images[0].get_array(), 3, 8, 5, 4) == 0.5).all()
    assert [text.get_text() for text in axes.texts] == [str(i) for i in range(10)]
    with Image.open(tmp_path / "filters.png") as image:
        assert image.format == "PNG"


def test_other_numbers_of_channels_are_grey_tiles_a_filter_a_row(tmp_path, figures):
    filters = np.random.default_rng(1).normal(size=(40, 20, 3, 3)).astype(np.float32)
    assert drawing.draw_filters(filters, tmp_path / "f.png") == "32 of 40 filters of 3x3, 8 of 20 channels"
    (axes,) = figures[0].axes
    expected = 0.5 + filters[2, 5] / (2 * np.abs(filters[2]).max())
    assert tile(axes, axes.images[0].get_array(), 2 * 8 + 5, 8, 3, 3) == pytest.approx(expected, abs=1e-6)
    assert [text.get_text() for text in axes.texts] == [str(i) for i in range(32)]


@pytest.mark.parametrize("shape", [(4, 3, 5), (0, 3, 5, 5)])
def test_what_are_no_filters_is_an_error(tmp_path, shape):
    with pytest.raises(ValueError, match="expected filters"):
        drawing.draw_filters(np.zeros(shape), tmp_path / "f.png")


def test_the_maps_shown_are_those_that_vary_most_in_the_order_of_channels(tmp_path, figures):
    rng = np.random.default_rng(2)
    maps = rng.normal(size=(6, 4, 7)).astype(np.float32) * np.array([1, 5, 0, 3, 9, 2], np.float32)[:, None, None]
    maps[2] += 100.0  # large, but the same everywhere
    assert drawing.strongest(maps, 3).tolist() == [1, 3, 4]
    told = drawing.draw_maps(maps, tmp_path / "m.png", np.zeros((8, 8, 1), np.uint8), "conv1", limit=3)
    assert told == "3 of 6 maps of 4x7, those that vary most"
    image, axes, _bar = figures[0].axes
    assert image.images[0].get_array().shape == (8, 8)
    assert [text.get_text() for text in axes.texts] == ["1", "3", "4"]
    for place, channel in enumerate((1, 3, 4)):
        assert (tile(axes, axes.images[0].get_array(), place, 3, 4, 7) == maps[channel]).all()
    low, high = axes.images[0].get_clim()
    assert low == -high
    assert high == pytest.approx(np.percentile(np.abs(maps[[1, 3, 4]]), 99.5))


def test_all_maps_are_shown_where_they_are_few(tmp_path):
    assert drawing.draw_maps(np.zeros((5, 1, 1), np.float32), tmp_path / "m.png") == "5 maps of 1x1"
    with pytest.raises(ValueError, match="a limit above 0"):
        drawing.draw_maps(np.zeros((5, 1, 1), np.float32), tmp_path / "m.png", limit=0)


class Twice(nn.Module):
    """A network that uses a convolution twice, and another data format."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Conv2d(2, 2, 3, padding=1, device="cpu")
        self.last = nn.Conv2d(2, 5, 2, device="cpu", data_format="NHWC")

    def forward(self, x):
        x = self.again(F.relu(self.again(x)))
        return self.last(x.permute(0, 2, 3, 1)).flatten(1)


def test_the_maps_of_a_network_are_what_its_convolutions_return():
    gpucnn.manual_seed(3)
    model = Twice()
    x = gpucnn.randn(2, 2, 4, 5, device="cpu")
    maps, logits = drawing.activation_maps(model, x)
    assert [m.layer for m in maps] == ["again", "again (2)", "last"]
    with gpucnn.no_grad():
        once = model.again(x)
        twice = model.again(F.relu(once))
        last = model.last(twice.permute(0, 2, 3, 1)).numpy()[0].transpose(2, 0, 1)
        assert (logits == model(x).numpy()[0]).all()
    for got, expected in zip(maps, (once.numpy()[0], twice.numpy()[0], last), strict=True):
        assert (got.values == expected).all()
    assert "forward" not in vars(model.again)  # nothing is left behind


def test_a_network_that_fails_is_left_as_it_was():
    model = Twice()
    with pytest.raises(ValueError, match="channels"):
        drawing.activation_maps(model, gpucnn.zeros(1, 3, 4, 5, device="cpu"))
    assert "forward" not in vars(model.again)
    assert "forward" not in vars(model.last)


@pytest.mark.parametrize(
    ("name", "first", "layers"),
    [("lecture_cnn", 64, 2), ("lenet5", 6, 2), ("resnet9", 64, 8), ("airbench94", 24, 7), ("resnet20", 16, 19)],
)
def test_every_network_of_the_house_shows_its_filters_and_maps(name, first, layers, tmp_path):
    model = models.create(name, device="cpu").eval()
    found = drawing.convolutions(model)
    assert drawing.draw_filters(found[0][1].filters().numpy(), tmp_path / "f.png").startswith(f"{first} filters")
    maps, logits = drawing.activation_maps(model, gpucnn.randn(1, *model.input_shape, device="cpu"))
    assert len(maps) == len(found) == layers
    assert [m.values.shape[0] for m in maps] == [layer.out_channels for _, layer in found]
    assert logits.shape == (10,)
    deepest = max(maps, key=lambda m: m.values.shape[0])
    assert "of" in drawing.draw_maps(deepest.values, tmp_path / "m.png", limit=8)
