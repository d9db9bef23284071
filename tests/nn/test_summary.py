"""A network's account against its published figures and against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest

import gpucnn
from gpucnn import functional as F
from gpucnn import models, nn
from gpucnn.nn.summary import Row, summarize, total


@pytest.mark.parametrize(
    ("name", "forward", "training", "parameters"),
    [
        ("lecture_cnn", 36.9e6, 105.3e6, 1_068_298),
        ("airbench94", 236.3e6, 0.708e9, 1_972_792),
        ("resnet9", 758.5e6, 2.27e9, 6_573_120),
        ("resnet20", 81.1e6, 0.242e9, 269_722),
    ],
)
def test_the_published_arithmetic(name: str, forward: float, training: float, parameters: int) -> None:
    model = models.create(name, device="cpu")
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    rows = summarize(model)
    everything = total(rows)
    assert everything.flops == pytest.approx(forward, rel=2e-3)
    assert everything.training_flops == pytest.approx(training, rel=2e-3)
    assert everything.parameters == parameters == sum(p.numel() for p in model.parameters())
    assert everything.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert everything.parameter_bytes == 4 * parameters and everything.output_shape == (1, 10)
    for key, value in model.state_dict().items():
        assert np.array_equal(value.numpy(), state[key]), key


def test_the_rows_of_lenet5() -> None:
    rows = summarize(models.lenet5(device="cpu"))
    own = [(row.name, row.kind, row.output_shape, row.parameters, row.flops) for row in rows if row.kind != "Reshape"]
    assert own == [
        ("conv1", "Conv2d + relu + max_pool", (1, 6, 14, 14), 156, 2 * 784 * 6 * 25),
        ("conv2", "Conv2d + relu + max_pool", (1, 16, 5, 5), 2416, 2 * 100 * 16 * 150),
        ("fc1", "Linear + relu", (1, 120), 48120, 2 * 400 * 120),
        ("fc2", "Linear + relu", (1, 84), 10164, 2 * 120 * 84),
        ("fc3", "Linear", (1, 10), 850, 2 * 84 * 10),
    ]
    first = rows[0]
    assert first.training_flops == 2 * first.flops and first.activation_bytes == 4 * 6 * 196
    assert rows[-1].training_flops == 3 * rows[-1].flops


class Odd(nn.Module):
    """Parameters beside submodules, one shared, a layer used twice, one not at all, groups and a product by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(gpucnn.ones(4, 1, 1, device="cpu"))
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False, device="cpu")
        self.conv.weight.requires_grad_(False)
        self.same = nn.Module()
        self.same.weight = self.conv.weight
        self.spare = nn.Linear(3, 2, device="cpu")
        self.drop = nn.Dropout(0.5)

    def forward(self, x: gpucnn.Tensor) -> gpucnn.Tensor:
        x = self.drop(self.conv(self.conv(x) * self.scale))
        flat = x.reshape(2, 2 * 5 * 6)
        return flat @ flat.T


def test_odd_networks() -> None:
    model = Odd().train()
    model.drop.eval()
    rows = summarize(model, (4, 5, 6))
    conv = 2 * 30 * 4 * 9 * 2
    named = [(row.name, row.kind, row.parameters, row.trained, row.flops) for row in rows]
    assert named[:4] == [
        ("", "Odd", 4, 4, 0),
        ("conv", "Conv2d", 72, 0, conv),
        ("", "Multiply", 0, 0, 0),
        ("conv", "Conv2d", 0, 0, conv),
    ]
    # Nothing before the scale needs a gradient; the frozen filters never do.
    assert [row.training_flops for row in rows if row.name == "conv"] == [conv, 2 * conv]
    product = next(row for row in rows if row.kind == "MatMul")
    assert (product.flops, product.training_flops, product.output_shape) == (2 * 60 * 4, 6 * 60 * 4, (2, 2))
    assert rows[-1] == Row("spare", "Linear", None, 8, 8, 0, 0, 0, 32)
    assert total(rows).parameters == 4 + 72 + 8 and total(rows).output_shape == (2, 2)
    assert model.training and model.conv.training and not model.drop.training
    assert all("forward" not in vars(module) for module in model.modules())


def test_the_model_is_left_alone_where_it_fails() -> None:
    model = models.lenet5(device="cpu").train()
    with pytest.raises(ValueError, match="conv2d"):
        summarize(model, (3, 28, 28))
    assert model.training and "forward" not in vars(model) and "forward" not in vars(model.conv1)
    assert model(gpucnn.zeros(2, 1, 28, 28, device="cpu")).shape == (2, 10)


def test_a_forward_that_was_put_on_a_module_is_called_and_stays() -> None:
    layer = nn.Linear(3, 2, device="cpu")

    def twice(x: gpucnn.Tensor) -> gpucnn.Tensor:
        return F.linear(x, layer.weight, layer.bias) * 2.0

    layer.forward = twice  # type: ignore[method-assign]
    (row,) = summarize(layer, (3,))
    assert (row.flops, row.activation_bytes) == (12, 16) and vars(layer)["forward"] is twice


def test_shapes_that_are_missing_or_wrong() -> None:
    with pytest.raises(ValueError, match="Linear has no input_shape of its own: give one, without the batch"):
        summarize(nn.Linear(3, 2, device="cpu"))
    with pytest.raises(ValueError, match=r"summarize: input_shape must be positive, got \(3, 0\)"):
        summarize(nn.Linear(3, 2, device="cpu"), (3, 0))
    (row,) = summarize(nn.Linear(3, 2, device="cpu", dtype=np.float64), (3,))
    assert (row.name, row.parameter_bytes, row.activation_bytes, row.flops) == ("", 64, 16, 12)


def test_without_parameters() -> None:
    (row,) = summarize(nn.ReLU(), (2, 3))
    assert (row.kind, row.output_shape, row.parameters, row.training_flops) == ("ReLU", (1, 2, 3), 0, 0)


def test_observers_see_every_call_and_take_turns() -> None:
    from gpucnn.autograd import observe

    outer: list[str] = []
    inner: list[tuple[str, tuple[bool, ...]]] = []
    x = gpucnn.randn(2, 3, device="cpu", requires_grad=True)
    with observe(lambda function, args, outputs, needs: outer.append(function.__name__)):
        F.relu(x)
        with observe(lambda function, args, outputs, needs: inner.append((function.__name__, needs))), gpucnn.no_grad():
            F.relu(x)
        with pytest.raises(ValueError, match="linear"):
            F.linear(x, gpucnn.zeros(2, 2, device="cpu"))
        F.linear(x, gpucnn.zeros(2, 3, device="cpu"))
    F.relu(x)
    assert outer == ["ReLU", "Linear"] and inner == [("ReLU", (False,))]
