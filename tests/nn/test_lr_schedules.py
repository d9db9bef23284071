"""Each schedule by its closed formula, combined schedules, saved states, and PyTorch beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gpucnn
from gpucnn.optim import SGD, Adam, lr_scheduler
from gpucnn.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PiecewiseLinearLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

RATES = (0.1, 2.0)


def make_optimizer(*rates: float, kind: Any = SGD, **options: Any) -> Any:
    return kind([{"params": [gpucnn.zeros(1, device="cpu")], "lr": rate} for rate in rates or RATES], **options)


def rates(scheduler: LRScheduler) -> list[float]:
    return [group["lr"] for group in scheduler.optimizer.param_groups]


def walk(scheduler: LRScheduler, epochs: int) -> Iterator[tuple[int, list[float]]]:
    for epoch in range(epochs):
        assert scheduler.get_last_lr() == rates(scheduler)
        yield epoch, rates(scheduler)
        scheduler.step()


def close(numbers: list[float], rel: float = 1e-10) -> Any:
    return pytest.approx(numbers, rel=rel, abs=1e-15)


FORMULAS: dict[str, tuple[Callable[[Any], LRScheduler], Callable[[int, float], float]]] = {
    "multi-step": (
        lambda o: MultiStepLR(o, [3, 7, 7, 11], gamma=0.5),
        lambda e, lr: lr * 0.5 ** sum(e >= m for m in (3, 7, 7, 11)),
    ),
    "step": (lambda o: StepLR(o, 4, gamma=0.3), lambda e, lr: lr * 0.3 ** (e // 4)),
    "constant": (lambda o: ConstantLR(o, factor=0.25, total_iters=4), lambda e, lr: lr * (0.25 if e < 4 else 1)),
    "linear": (lambda o: LinearLR(o, 0.1, 0.7, 6), lambda e, lr: lr * (0.1 + 0.6 * min(e, 6) / 6)),
    "linear down": (lambda o: LinearLR(o, 1.0, 0.0, 9), lambda e, lr: lr * (1 - min(e, 9) / 9)),
    "exponential": (lambda o: ExponentialLR(o, 0.9), lambda e, lr: lr * 0.9**e),
    "polynomial": (lambda o: PolynomialLR(o, 8, power=2.5), lambda e, lr: lr * max(0.0, 1 - e / 8) ** 2.5),
    "cosine": (
        lambda o: CosineAnnealingLR(o, 7, eta_min=0.01),
        lambda e, lr: 0.01 + (lr - 0.01) * (1 + math.cos(math.pi * e / 7)) / 2,
    ),
    "restarts": (
        lambda o: CosineAnnealingWarmRestarts(o, 5, eta_min=0.02),
        lambda e, lr: 0.02 + (lr - 0.02) * (1 + math.cos(math.pi * (e % 5) / 5)) / 2,
    ),
    "lambda": (lambda o: LambdaLR(o, lambda e: 1 / (1 + e)), lambda e, lr: lr / (1 + e)),
    "multiplicative": (lambda o: MultiplicativeLR(o, lambda e: 1 / e), lambda e, lr: lr / math.factorial(e)),
    "triangle": (
        lambda o: PiecewiseLinearLR(o, [0, 4, 10], [0.2, 1.0, 0.0]),
        lambda e, lr: lr * (0.2 + 0.8 * e / 4 if e <= 4 else max(0.0, 1 - (e - 4) / 6)),
    ),
    "plateau of two milestones": (
        lambda o: PiecewiseLinearLR(o, [2.5, 3.5], [3, 1]),
        lambda e, lr: lr * {0: 3, 1: 3, 2: 3, 3: 2}.get(e, 1),
    ),
    "warm-up, then cosine": (
        lambda o: SequentialLR(o, [LinearLR(o, 0.25, total_iters=4), CosineAnnealingLR(o, 6)], [4]),
        lambda e, lr: lr * (0.25 + 0.75 * e / 4) if e < 4 else lr * (1 + math.cos(math.pi * (e - 4) / 6)) / 2,
    ),
    "chained": (
        lambda o: ChainedScheduler([ConstantLR(o, 0.5, total_iters=3), ExponentialLR(o, 0.8)]),
        lambda e, lr: lr * 0.8**e * (0.5 if e < 3 else 1),
    ),
    "chained in sequence": (
        lambda o: SequentialLR(
            o, [StepLR(o, 2), ChainedScheduler([ConstantLR(o, 0.5, total_iters=3), ExponentialLR(o, 0.8)])], [5]
        ),
        lambda e, lr: lr * 0.1 ** (e // 2) if e < 5 else lr * 0.8 ** (e - 5) * (0.5 if e < 8 else 1),
    ),
    "a sequence in a sequence": (
        lambda o: SequentialLR(
            o, [ExponentialLR(o, 0.9), SequentialLR(o, [StepLR(o, 2, 0.5), PolynomialLR(o, 4)], [3])], [5]
        ),
        lambda e, lr: lr * (0.9**e if e < 5 else 0.5 ** ((e - 5) // 2) if e < 8 else max(0, 1 - (e - 8) / 4)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_the_closed_formula(name: str) -> None:
    make, formula = FORMULAS[name]
    for epoch, got in walk(make(make_optimizer()), 20):
        assert got == close([formula(epoch, lr) for lr in RATES]), epoch


def test_restarts_whose_waves_grow() -> None:
    places = [(i, n) for n in (2, 6, 18) for i in range(n)]
    for epoch, got in walk(CosineAnnealingWarmRestarts(make_optimizer(), 2, T_mult=3), 26):
        since, length = places[epoch]
        assert got == close([lr * (1 + math.cos(math.pi * since / length)) / 2 for lr in RATES])


def test_restarts_move_on_within_an_epoch() -> None:
    scheduler = CosineAnnealingWarmRestarts(make_optimizer(1.0), 2, T_mult=2)
    for epoch, since, length in ((0.5, 0.5, 2), (2.0, 0, 2 * 2), (5.25, 3.25, 4), (1.5, 1.5, 2), (6, 0, 8)):
        scheduler.step(epoch)
        assert rates(scheduler) == close([(1 + math.cos(math.pi * since / length)) / 2])
        assert scheduler.last_epoch == math.floor(epoch)
    with pytest.raises(ValueError, match="epoch must be a finite number from 0 to inf, got -1"):
        scheduler.step(-1)


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_one_cycle(strategy: Any) -> None:
    """20 steps of which 6 rise: the top is at step 5, the end at step 19, and momentum goes the other way."""
    optimizer = make_optimizer(momentum=0.5)
    scheduler = OneCycleLR(optimizer, [1.0, 3.0], 20, anneal_strategy=strategy, div_factor=10, final_div_factor=100)

    def between(start: float, end: float, share: float) -> float:
        return end + (start - end) * ((1 + math.cos(math.pi * share)) / 2 if strategy == "cos" else 1 - share)

    for step, got in walk(scheduler, 20):
        rising = step <= 5
        share = step / 5 if rising else (step - 5) / 14
        wanted = [between(top / 10, top, share) if rising else between(top, top / 1000, share) for top in (1.0, 3.0)]
        momentum = between(0.95, 0.85, share) if rising else between(0.85, 0.95, share)
        assert got == close(wanted)
        assert [g["momentum"] for g in optimizer.param_groups] == close([momentum, momentum])
    with pytest.raises(ValueError, match="step 21 of a schedule of 20 steps"):
        scheduler.step()
    assert scheduler.last_epoch == 20


def test_one_cycle_of_three_phases() -> None:
    """20 steps: up to step 5, down to the start until step 10, and to the end at step 19."""
    scheduler = OneCycleLR(
        make_optimizer(), 1.0, 20, anneal_strategy="linear", div_factor=10, final_div_factor=100, three_phase=True
    )
    for step, got in walk(scheduler, 20):
        wanted = 0.1 + 0.9 * (1 - abs(step - 5) / 5) if step <= 10 else 0.1 - 0.099 * (step - 10) / 9
        momentum = 0.95 - 0.1 * max(0.0, 1 - abs(step - 5) / 5)
        assert got == close([wanted, wanted])
        assert scheduler.optimizer.param_groups[0]["momentum"] == pytest.approx(momentum)


def test_one_cycle_turns_the_first_beta_and_may_leave_it() -> None:
    optimizer = make_optimizer(kind=Adam, betas=(0.7, 0.99))
    OneCycleLR(optimizer, 1.0, epochs=2, steps_per_epoch=5)
    assert [g["betas"] for g in optimizer.param_groups] == [(0.95, 0.99)] * 2
    optimizer = make_optimizer(kind=Adam, betas=(0.7, 0.99))
    OneCycleLR(optimizer, 1.0, 10, cycle_momentum=False)
    assert optimizer.param_groups[0]["betas"] == (0.7, 0.99)


def test_one_cycle_whose_rise_is_one_step_long() -> None:
    scheduler = OneCycleLR(make_optimizer(), 1.0, 10, pct_start=0.1)
    assert rates(scheduler) == close([1.0, 1.0])


def test_plateaus() -> None:
    optimizer = make_optimizer()
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=2, min_lr=[0.06, 0.0])
    #          best  bad  bad->halved  cooling, cooling  bad  bad->halved, down to the least
    metrics = [1.00, 1.0, 0.99995, 2.0, math.nan, 1.0, 1.0]
    wanted = [RATES] * 2 + [(0.06, 1.0)] * 4 + [(0.06, 0.5)]
    for metric, expected in zip(metrics, wanted, strict=True):
        scheduler.step(gpucnn.tensor(metric))
        assert rates(scheduler) == scheduler.get_last_lr() == close(list(expected))
    assert scheduler.best == 1.0 and scheduler.in_cooldown and scheduler.last_epoch == 7


def test_a_plateau_waits_again_after_a_reduction_and_makes_none_that_is_too_small() -> None:
    optimizer = make_optimizer()
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=1, eps=0.6 * RATES[0])
    seen = []
    for _ in range(6):
        scheduler.step(1.0)
        seen.append(rates(scheduler))
    assert [first for first, _ in seen] == [RATES[0]] * 6
    assert [second / RATES[1] for _, second in seen] == [1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("mode", "threshold_mode", "better", "worse"),
    [("min", "rel", 0.89, 0.91), ("max", "rel", 1.11, 1.09), ("min", "abs", 0.89, 0.91), ("max", "abs", 1.11, 1.09)],
)
def test_what_is_an_improvement(mode: Any, threshold_mode: Any, better: float, worse: float) -> None:
    scheduler = ReduceLROnPlateau(make_optimizer(), mode, threshold=0.1, threshold_mode=threshold_mode)
    scheduler.step(1.0)
    scheduler.step(worse)
    assert (scheduler.best, scheduler.num_bad_epochs) == (1.0, 1)
    scheduler.step(better)
    assert (scheduler.best, scheduler.num_bad_epochs) == (better, 0)


# ---- states ----------------------------------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[Any], Any]] = {
    **{name: make for name, (make, _) in FORMULAS.items()},
    "growing restarts": lambda o: CosineAnnealingWarmRestarts(o, 3, T_mult=2),
    "one cycle": lambda o: OneCycleLR(o, 1.0, 30),
    "three phases": lambda o: OneCycleLR(o, 1.0, 30, three_phase=True),
    "plateau": lambda o: ReduceLROnPlateau(o, "max", patience=1, cooldown=1),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("epochs", [0, 2, 9])
def test_a_schedule_goes_on_from_its_state_to_the_bit(name: str, epochs: int) -> None:
    straight = MAKERS[name](make_optimizer(momentum=0.9))
    metrics = [(m * 0.61) % 1 for m in range(30)]
    given = [(m,) if name == "plateau" else () for m in metrics]
    for arguments in given[:epochs]:
        straight.step(*arguments)
    saved, of_optimizer = json.dumps(straight.state_dict(), allow_nan=False), straight.optimizer.state_dict()
    expected = []
    for arguments in given[epochs:20]:
        straight.step(*arguments)
        expected.append([{k: v for k, v in g.items() if k != "params"} for g in straight.optimizer.param_groups])
    resumed = MAKERS[name](make_optimizer(7.0, 7.0, momentum=0.1))
    resumed.optimizer.load_state_dict(of_optimizer)
    resumed.load_state_dict(json.loads(saved))
    for arguments, wanted in zip(given[epochs:20], expected, strict=True):
        resumed.step(*arguments)
        assert [{k: v for k, v in g.items() if k != "params"} for g in resumed.optimizer.param_groups] == wanted
    assert resumed.state_dict() == straight.state_dict()


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    optimizer = make_optimizer()
    target = SequentialLR(optimizer, [StepLR(optimizer, 2), CosineAnnealingWarmRestarts(optimizer, 3)], [4])
    for _ in range(3):
        target.step()
    before = target.state_dict()
    other = json.loads(json.dumps(before))
    for _ in range(3):
        target.step()
    after = target.state_dict()
    del other["schedulers"][1]["T_i"]
    for state, message in (
        (other, "CosineAnnealingWarmRestarts: not the state of a scheduler: KeyError"),
        ({**before, "schedulers": before["schedulers"][:1]}, "SequentialLR: not the state of 2 schedulers"),
        ({**before, "last_epoch": "x"}, "SequentialLR: not the state of a scheduler"),
        ({**before, "last_lr": [1.0]}, "of 2 groups"),
        ({**before, "base_lrs": ["1", "2"]}, "not the state of a scheduler"),
        (StepLR(make_optimizer(), 2).state_dict(), "not the state of 2 schedulers: None"),
        ([], "not the state of a scheduler"),
    ):
        with pytest.raises(ValueError, match=message):
            target.load_state_dict(state)
        assert target.state_dict() == after
    plateau = ReduceLROnPlateau(make_optimizer())
    with pytest.raises(ValueError, match="best is 'x'"):
        plateau.load_state_dict({**plateau.state_dict(), "best": "x"})


# ---- wrong arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: MultiStepLR(o, [2, 1.5]), r"MultiStepLR: a milestone must be an int, 0 or more, got 1.5"),
        (lambda o: StepLR(o, 2, gamma=math.nan), "StepLR: gamma must be a finite number, got nan"),
        (lambda o: ConstantLR(o, 1.5), "ConstantLR: factor must be a finite number from 0 to 1, got 1.5"),
        (lambda o: ConstantLR(o, 0.0), "factor must be above 0"),
        (lambda o: ConstantLR(o, total_iters=0), "total_iters must be a positive int, got 0"),
        (lambda o: LinearLR(o, 0), "start_factor must be above 0"),
        (lambda o: LinearLR(o, end_factor=2), "end_factor must be a finite number from 0 to 1, got 2"),
        (lambda o: PolynomialLR(o, True), "total_iters must be a positive int, got True"),
        (lambda o: CosineAnnealingLR(o, 0), "T_max must be a positive int, got 0"),
        (lambda o: CosineAnnealingWarmRestarts(o, 3, 0), "T_mult must be a positive int, got 0"),
        (lambda o: PiecewiseLinearLR(o, [0, 2, 2], [1, 2, 3]), r"milestones must increase, got \[0, 2, 2\]"),
        (lambda o: PiecewiseLinearLR(o, [0, 2], [1]), "got 2 milestones and 1 factors"),
        (lambda o: PiecewiseLinearLR(o, [], []), "one or more milestones"),
        (lambda o: OneCycleLR(o, 1.0), "give total_steps, or epochs and steps_per_epoch"),
        (lambda o: OneCycleLR(o, 1.0, epochs=2), "give total_steps"),
        (lambda o: OneCycleLR(o, [1.0], 5), "got 1 values of max_lr for 2 parameter groups"),
        (lambda o: OneCycleLR(o, 1.0, 5, pct_start=1.5), "pct_start must be a finite number from 0 to 1"),
        (lambda o: OneCycleLR(o, 1.0, 5, anneal_strategy="sine"), "must be 'cos' or 'linear', got 'sine'"),
        (lambda o: OneCycleLR(o, 1.0, 5, div_factor=0), "div_factor must be above 0"),
        (lambda o: MultiplicativeLR(o, [1.0, 2.0]), "lr_lambda must be a function, got float"),
        (lambda o: SequentialLR(o, [], []), "one or more schedulers, got none"),
        (lambda o: SequentialLR(o, [StepLR(o, 1)], [3]), "between any two of 1 schedulers, got 1"),
        (lambda o: SequentialLR(o, [StepLR(o, 1)] * 3, [3, 2]), "must not decrease"),
        (lambda o: SequentialLR(o, [StepLR(o, 1)], [], last_epoch=3), "by load_state_dict only, got last_epoch=3"),
        (lambda o: SequentialLR(o, [StepLR(make_optimizer(), 1)], []), "scheduler 0, StepLR, belongs to another"),
        (lambda o: ChainedScheduler([StepLR(o, 1), StepLR(make_optimizer(), 1)]), "scheduler 1, StepLR, belongs"),
        (lambda o: ChainedScheduler([ReduceLROnPlateau(o)]), "needs a metric at each step"),
        (lambda o: ReduceLROnPlateau(o, "low"), "mode must be 'min' or 'max', got 'low'"),
        (lambda o: ReduceLROnPlateau(o, threshold_mode="x"), "threshold_mode must be 'rel' or 'abs', got 'x'"),
        (lambda o: ReduceLROnPlateau(o, factor=1.0), "factor must be below 1, got 1.0"),
        (lambda o: ReduceLROnPlateau(o, min_lr=[0.1]), "got 1 values of min_lr for 2 parameter groups"),
    ],
)  # fmt: skip
def test_wrong_arguments(make: Callable[[Any], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make(make_optimizer())


def test_a_part_must_be_a_scheduler() -> None:
    with pytest.raises(TypeError, match="scheduler 0 is a int"):
        ChainedScheduler([3])  # type: ignore[list-item]


# ---- PyTorch ---------------------------------------------------------------------------------------------------------

PEERS: dict[str, Callable[[Any, Any], Any]] = {
    "step": lambda L, o: L.StepLR(o, 7, gamma=0.3),
    "multi-step": lambda L, o: L.MultiStepLR(o, [3, 7, 7, 31]),
    "constant": lambda L, o: L.ConstantLR(o, total_iters=9),
    "linear": lambda L, o: L.LinearLR(o, 0.2, 0.9, 11),
    "exponential": lambda L, o: L.ExponentialLR(o, 0.93),
    "polynomial": lambda L, o: L.PolynomialLR(o, 30, 1.7),
    "cosine": lambda L, o: L.CosineAnnealingLR(o, 9, 0.003),
    "restarts": lambda L, o: L.CosineAnnealingWarmRestarts(o, 5, 2, 0.003),
    "one cycle": lambda L, o: L.OneCycleLR(o, [0.3, 0.7], 61),
    "one linear cycle": lambda L, o: L.OneCycleLR(
        o, 0.3, epochs=7, steps_per_epoch=9, anneal_strategy="linear", three_phase=True, pct_start=0.4, div_factor=7.0
    ),
    "lambda": lambda L, o: L.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (e + 1)]),
    "multiplicative": lambda L, o: L.MultiplicativeLR(o, lambda e: 1 - 1 / (e + 2)),
    "sequential": lambda L, o: L.SequentialLR(
        o,
        [
            L.LinearLR(o, 0.1, total_iters=5),
            L.CosineAnnealingWarmRestarts(o, 4),
            L.ExponentialLR(o, 0.9),
            L.StepLR(o, 3),
        ],
        [5, 16, 40],
    ),
    "chained": lambda L, o: L.ChainedScheduler([L.ConstantLR(o, 0.1, 20), L.CosineAnnealingLR(o, 50), L.StepLR(o, 17)]),
    "cosine and warm-up": lambda L, o: L.SequentialLR(
        o, [L.LinearLR(o, 0.01, total_iters=7), L.CosineAnnealingLR(o, 53)], [7]
    ),
}  # fmt: skip


def both(name: str, kind: str = "SGD", **options: Any) -> tuple[Any, Any]:
    """The schedule ``name`` over our optimizer and over PyTorch's."""
    import torch

    peer = getattr(torch.optim, kind)([{"params": [torch.zeros(1)], "lr": lr} for lr in RATES], **options)
    own = make_optimizer(kind=getattr(gpucnn.optim, kind), **options)
    schedules = PEERS[name](lr_scheduler, own), PEERS[name](torch.optim.lr_scheduler, peer)
    peer.step()  # else PyTorch warns of the order
    return schedules


@pytest.mark.peers
@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize(("kind", "options"), [("SGD", {"momentum": 0.5}), ("Adam", {"betas": (0.8, 0.9)})])
def test_sixty_steps_are_pytorchs(name: str, kind: str, options: dict[str, Any]) -> None:
    own, peer = both(name, kind, **options)
    for _ in range(60):
        assert own.get_last_lr() == close(peer.get_last_lr(), 1e-9)
        for mine, theirs in zip(own.optimizer.param_groups, peer.optimizer.param_groups, strict=True):
            for option in ("lr", "initial_lr", *options):
                assert mine[option] == pytest.approx(theirs[option], rel=1e-9, abs=1e-15), option
        own.step()
        peer.step()


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:Detected call of")  # of steps of the second schedule
@pytest.mark.parametrize("name", [n for n in PEERS if "sequential" not in n and "chained" not in n and "and" not in n])
def test_going_on_from_last_epoch_is_pytorchs(name: str) -> None:
    import torch

    own, peer = both(name, momentum=0.5)
    for _ in range(8):
        own.step()
        peer.step()
    makers = {
        "step": lambda L, o: L.StepLR(o, 7, 0.3, last_epoch=8),
        "multi-step": lambda L, o: L.MultiStepLR(o, [3, 7, 7, 31], last_epoch=8),
        "constant": lambda L, o: L.ConstantLR(o, total_iters=9, last_epoch=8),
        "linear": lambda L, o: L.LinearLR(o, 0.2, 0.9, 11, last_epoch=8),
        "exponential": lambda L, o: L.ExponentialLR(o, 0.93, last_epoch=8),
        "polynomial": lambda L, o: L.PolynomialLR(o, 30, 1.7, last_epoch=8),
        "cosine": lambda L, o: L.CosineAnnealingLR(o, 9, 0.003, last_epoch=8),
        "restarts": lambda L, o: L.CosineAnnealingWarmRestarts(o, 5, 2, 0.003, last_epoch=2),
        "one cycle": lambda L, o: L.OneCycleLR(o, [0.3, 0.7], 61, last_epoch=8),
        "one linear cycle": lambda L, o: L.OneCycleLR(o, 0.3, 63, anneal_strategy="linear", last_epoch=8),
        "lambda": lambda L, o: L.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (e + 1)], last_epoch=8),
        "multiplicative": lambda L, o: L.MultiplicativeLR(o, lambda e: 1 - 1 / (e + 2), last_epoch=8),
    }
    again, peer_again = (
        makers[name](lr_scheduler, own.optimizer),
        makers[name](torch.optim.lr_scheduler, peer.optimizer),
    )
    for _ in range(3):
        assert again.last_epoch == peer_again.last_epoch
        assert again.get_last_lr() == close(peer_again.get_last_lr(), 1e-9)
        again.step()
        peer_again.step()


@pytest.mark.peers
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "max", "patience": 2, "threshold_mode": "abs", "threshold": 0.05},
        {"factor": 0.5, "patience": 0, "cooldown": 3, "min_lr": [0.01, 0.3]},
        {"factor": 0.3, "patience": 1, "eps": 0.02},
    ],
    ids=str,
)
def test_plateaus_are_pytorchs(options: dict[str, Any]) -> None:
    import torch

    peer_optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "lr": lr} for lr in RATES])
    own = ReduceLROnPlateau(make_optimizer(), **options)
    peer = torch.optim.lr_scheduler.ReduceLROnPlateau(peer_optimizer, **options)
    for step in range(60):
        metric = math.cos(step / 5) / (1 + step / 20) + 1
        own.step(metric)
        peer.step(metric)
        assert own.get_last_lr() == close(peer.get_last_lr())
        assert (own.best, own.num_bad_epochs, own.cooldown_counter) == (
            peer.best, peer.num_bad_epochs, peer.cooldown_counter,
        )  # fmt: skip
