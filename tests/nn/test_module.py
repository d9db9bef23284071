"""What a module owns: registration, names, modes, moving, saving, printing."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import nn


def parameter(*shape: int, value: float = 0.0) -> nn.Parameter:
    return nn.Parameter(gpucnn.full(shape, value, device="cpu", dtype=np.float32))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = parameter(3, value=2.0)
        self.inner = nn.Linear(3, 2, device="cpu")
        self.register_buffer("count", gpucnn.tensor([7], device="cpu"))
        self.register_buffer("scratch", gpucnn.zeros(2, device="cpu"), persistent=False)
        self.note = "plain"

    def forward(self, x: gpucnn.Tensor) -> gpucnn.Tensor:
        return self.inner(x * self.scale)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Block()
        self.bias = parameter(4)
        self.last = nn.Linear(2, 4, bias=False, device="cpu")


NAMES = ["bias", "first.scale", "first.inner.weight", "first.inner.bias", "last.weight"]


def test_names_come_in_pytorchs_order() -> None:
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [name for name, _ in net.named_parameters("net")] == ["net." + name for name in NAMES]
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["bias"]
    assert [name for name, _ in net.named_buffers()] == ["first.count", "first.scratch"]
    assert [name for name, _ in net.named_modules()] == ["", "first", "first.inner", "last"]
    assert [name for name, _ in net.named_children()] == ["first", "last"]
    assert list(net.state_dict()) == [
        "bias",
        "first.scale",
        "first.count",
        "first.inner.weight",
        "first.inner.bias",
        "last.weight",
    ]
    assert list(net.state_dict(prefix="m."))[1] == "m.first.scale"


def test_a_shared_parameter_is_walked_once_and_saved_under_both_names() -> None:
    net = nn.Sequential(nn.Linear(3, 3, device="cpu"), nn.Linear(3, 3, device="cpu"))
    net[1].weight = net[0].weight
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert "1.weight" in dict(net.named_parameters(remove_duplicate=False))
    assert {"0.weight", "1.weight"} <= set(net.state_dict())
    twice = nn.Sequential(net, net)
    assert len(list(twice.modules())) == 4
    assert {"0.0.bias", "1.0.bias"} <= set(twice.state_dict()) and len(list(twice.parameters())) == 3
    assert len(list(twice.children())) == 1


def test_assigning_registers_and_replaces() -> None:
    block = Block()
    assert block.note == "plain" and "note" not in dict(block.named_parameters())
    block.note = parameter(1)
    assert "note" in dict(block.named_parameters()) and "note" not in block.__dict__
    del block.note
    assert not hasattr(block, "note")
    block.note = nn.ReLU()
    assert "note" in dict(block.named_children())
    block.note = parameter(1)
    assert "note" in dict(block.named_parameters()) and "note" not in dict(block.named_children())
    del block.note
    assert not hasattr(block, "note")
    block.count = gpucnn.tensor([8], device="cpu")
    assert block.state_dict()["count"].item() == 8
    block.scale = None
    assert block.scale is None and "scale" not in dict(block.named_parameters())
    block.scale = parameter(3)
    assert next(block.named_parameters())[0] == "scale"  # keeps its place
    assert {"scale", "count", "inner", "forward"} <= set(dir(block))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scale", np.zeros(3), "cannot assign ndarray as parameter 'scale'"),
        ("inner", "x", "cannot assign str as child module 'inner'"),
        ("count", 3, "cannot assign int as buffer 'count'"),
    ],
)
def test_assigning_another_kind_raises(name: str, value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        setattr(Block(), name, value)


def test_registering_what_cannot_be_registered_raises() -> None:
    block = Block()
    with pytest.raises(KeyError, match="already exists"):
        block.register_parameter("forward", parameter(1))
    with pytest.raises(KeyError, match=r"contain '\.'"):
        block.register_buffer("a.b", None)
    with pytest.raises(KeyError, match="empty"):
        block.add_module("", nn.ReLU())
    with pytest.raises(TypeError, match="cannot register Tensor as parameter"):
        block.register_parameter("other", gpucnn.zeros(1, device="cpu"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot register int as buffer"):
        block.register_buffer("other", 3)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="'Block' object has no attribute 'absent'"):
        _ = block.absent

    class Early(nn.Module):
        def __init__(self) -> None:
            self.weight = parameter(1)

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\)"):
        Early()


def test_a_module_without_forward_says_so() -> None:
    with pytest.raises(NotImplementedError, match='Net is missing the required "forward"'):
        Net()(gpucnn.zeros(1, device="cpu"))


def test_modes_reach_every_module() -> None:
    net = Net()
    assert all(module.training for module in net.modules())
    assert net.eval() is net and not any(module.training for module in net.modules())
    net.first.train()
    assert net.first.inner.training and not net.last.training
    with pytest.raises(ValueError, match="bool"):
        net.train("yes")  # type: ignore[arg-type]


def test_apply_visits_children_before_their_parent() -> None:
    seen: list[str] = []
    Net().apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Linear", "Block", "Linear", "Net"]


def test_gradients_are_cleared_and_frozen() -> None:
    block = Block()
    block(gpucnn.ones(5, 3, device="cpu")).sum().backward()
    gradient = block.inner.bias.grad
    assert gradient is not None and np.array_equal(gradient.numpy(), [5.0, 5.0])
    block.zero_grad(set_to_none=False)
    assert block.inner.bias.grad is gradient and not gradient.numpy().any()
    block.zero_grad()
    assert all(p.grad is None for p in block.parameters())
    block.requires_grad_(False)
    assert not any(p.requires_grad for p in block.parameters())


def test_to_changes_parameters_in_place_and_leaves_integers() -> None:
    block = Block()
    before = list(block.parameters())
    block(gpucnn.ones(1, 3, device="cpu")).sum().backward()
    assert block.to(np.float64) is block
    assert all(new is old for new, old in zip(block.parameters(), before, strict=True))
    assert {p.dtype for p in block.parameters()} == {np.dtype(np.float64)}
    assert {p.grad.dtype for p in block.parameters() if p.grad is not None} == {np.dtype(np.float64)}
    assert block.count.dtype == np.int64 and block.scratch.dtype == np.float64
    assert all(p.requires_grad and p.is_leaf for p in block.parameters())
    assert block(gpucnn.ones(1, 3, device="cpu", dtype=np.float64)).dtype == np.float64
    assert block.float().scale.dtype == np.float32
    assert block.to("cpu", np.float64).double().scale.dtype == np.float64
    assert block.to(gpucnn.zeros(1, device="cpu")).scale.dtype == np.float32
    assert block.to("float64").scale.dtype == np.float64
    with pytest.raises(TypeError, match="floating"):
        block.to(np.int64)
    with pytest.raises(ValueError, match="unknown"):
        block.to("cpux")


def test_to_reaches_the_emulated_device_and_back() -> None:
    conv = nn.Conv2d(3, 5, (3, 2), device="cpu")
    values = {name: value.numpy() for name, value in conv.state_dict().items()}
    conv.to("emulated")
    assert {str(p.device) for p in conv.parameters()} == {"emulated"}
    conv.cpu()
    assert {str(p.device) for p in conv.parameters()} == {"cpu"}
    for name, value in conv.state_dict().items():
        assert np.array_equal(value.numpy(), values[name])


def test_a_deep_copy_is_independent() -> None:
    block = Block()
    twin = copy.deepcopy(block)
    with gpucnn.no_grad():
        twin.scale.fill_(9.0)
    assert np.array_equal(block.scale.numpy(), [2.0, 2.0, 2.0])
    assert isinstance(twin.scale, nn.Parameter) and twin.scale.requires_grad
    assert np.array_equal(twin.inner.weight.numpy(), block.inner.weight.numpy())
    twin(gpucnn.ones(1, 3, device="cpu")).sum().backward()
    assert twin.scale.grad is not None and block.scale.grad is None


# ---- state -----------------------------------------------------------------------------------------------------------


def random_state(net: nn.Module) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.integers(1, 100, value.shape).astype(value.dtype) for name, value in net.state_dict().items()}


def test_state_dict_shares_memory_and_is_off_the_tape() -> None:
    net = Net()
    state = net.state_dict()
    assert not any(value.requires_grad for value in state.values())
    state["bias"].fill_(3.0)
    assert np.array_equal(net.bias.numpy(), [3.0] * 4)
    assert net.state_dict(keep_vars=True)["bias"] is net.bias
    assert "first.scratch" not in state


@pytest.mark.parametrize("as_tensors", [False, True])
def test_state_goes_through_load(as_tensors: bool) -> None:
    net = Net()
    state = random_state(net)
    weight = net.first.inner.weight
    result = net.load_state_dict(
        {name: gpucnn.tensor(value, device="cpu") for name, value in state.items()} if as_tensors else state
    )
    assert result == ([], []) and result.missing_keys == []
    assert net.first.inner.weight is weight and weight.requires_grad
    for name, value in net.state_dict().items():
        assert np.array_equal(value.numpy(), state[name]), name


def test_load_lists_all_that_is_wrong_and_changes_nothing() -> None:
    net = Net()
    before = {name: value.numpy() for name, value in net.state_dict().items()}
    state: dict[str, object] = dict(random_state(net))
    del state["first.scale"], state["last.weight"]
    state["bias"] = np.zeros(5)
    state["first.inner.bias"] = np.zeros((2, 1))
    state["first.count"] = "seven"
    state["extra.weight"] = np.zeros(1)
    with pytest.raises(ValueError) as caught:
        net.load_state_dict(state)
    message = str(caught.value)
    for expected in (
        "missing: first.scale, last.weight",
        "unexpected: extra.weight",
        "bias: has shape (5,), Net expects (4,)",
        "first.inner.bias: has shape (2, 1), Net expects (2,)",
        "first.count: expected a tensor or an array, got str",
    ):
        assert expected in message
    for name, value in net.state_dict().items():
        assert np.array_equal(value.numpy(), before[name]), name


def test_load_without_strict_returns_names_but_never_takes_a_wrong_shape() -> None:
    net = Net()
    state = random_state(net)
    del state["bias"]
    state["extra"] = np.zeros(1)
    result = net.load_state_dict(state, strict=False)
    assert result.missing_keys == ["bias"] and result.unexpected_keys == ["extra"]
    assert np.array_equal(net.first.scale.numpy(), state["first.scale"])
    state["last.weight"] = np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"last.weight: has shape \(4, 3\)"):
        net.load_state_dict(state, strict=False)
    with pytest.raises(TypeError, match="mapping"):
        net.load_state_dict([("bias", 1)])  # type: ignore[arg-type]


def test_loading_keeps_the_memory_order_of_filters() -> None:
    conv = nn.Conv2d(3, 4, (3, 2), device="cpu")
    strides = conv.weight.data.strides
    values = np.arange(72, dtype=np.float32).reshape(4, 3, 3, 2)
    conv.load_state_dict({"weight": values, "bias": np.zeros(4)})
    assert conv.weight.data.strides == strides
    assert np.array_equal(conv.weight.numpy(), values)
    assert conv.weight.data.transpose(0, 2, 3, 1).flags.c_contiguous


# ---- looks -----------------------------------------------------------------------------------------------------------


def test_repr_is_pytorchs() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 5, padding=2, bias=False, device="cpu"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(),
        nn.LocalResponseNorm(5),
        nn.Flatten(),
        nn.Linear(3, 4, device="cpu"),
        nn.CrossEntropyLoss(),
        nn.AvgPool2d(3),
        nn.Identity(),
        nn.Sequential(nn.ReLU(inplace=True)),
    )
    assert repr(net) == (  # printed by PyTorch 2.13
        "Sequential(\n"
        "  (0): Conv2d(3, 6, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2), bias=False)\n"
        "  (1): ReLU()\n"
        "  (2): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)\n"
        "  (3): Dropout(p=0.5, inplace=False)\n"
        "  (4): LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)\n"
        "  (5): Flatten(start_dim=1, end_dim=-1)\n"
        "  (6): Linear(in_features=3, out_features=4, bias=True)\n"
        "  (7): CrossEntropyLoss()\n"
        "  (8): AvgPool2d(kernel_size=3, stride=3, padding=0)\n"
        "  (9): Identity()\n"
        "  (10): Sequential(\n"
        "    (0): ReLU(inplace=True)\n"
        "  )\n"
        ")"
    )
    conv = nn.Conv2d(4, 4, 3, padding="same", groups=2, dilation=2, device="cpu")
    assert repr(conv) == ("Conv2d(4, 4, kernel_size=(3, 3), stride=(1, 1), padding=same, dilation=(2, 2), groups=2)")
    linears = [nn.Linear(2, 2, device="cpu"), nn.Linear(2, 2, device="cpu"), nn.Linear(2, 3, device="cpu")]
    assert repr(nn.ModuleList(linears)) == (
        "ModuleList(\n"
        "  (0-1): 2 x Linear(in_features=2, out_features=2, bias=True)\n"
        "  (2): Linear(in_features=2, out_features=3, bias=True)\n"
        ")"
    )
    assert repr(nn.ModuleList()) == "ModuleList()" and repr(nn.Sequential()) == "Sequential()"
    assert repr(nn.Parameter(gpucnn.zeros(2, device="cpu"))).startswith("Parameter containing:\ntensor([0., 0.]")


def test_arguments_have_pytorchs_names(monkeypatch: pytest.MonkeyPatch) -> None:
    net, seen = nn.Sequential(nn.ReLU()), []
    net.apply(fn=seen.append)
    assert seen == [net[0], net]
    net.register_parameter(name="scale", param=nn.Parameter(gpucnn.ones(1, device="cpu")))
    assert [name for name, _ in net.named_parameters()] == ["scale"]
    places: list[Any] = []
    monkeypatch.setattr(nn.Module, "to", lambda self, place: places.append(place))
    for device in (None, 0, 1, "cuda:2", gpucnn.device("cuda:3")):
        net.cuda(device=device)
    assert places == ["cuda", "cuda:0", "cuda:1", "cuda:2", gpucnn.device("cuda:3")]
