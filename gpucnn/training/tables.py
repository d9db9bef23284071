"""What may stand in a config's tables, and in its keys: types, ranges and names, checked with messages that name them.

An optimizer's options are those of its class: their types are read from its signature.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from gpucnn import optim

Table = dict[str, Any]
Check = tuple[tuple[type, ...], str | tuple[str, ...]]  # types, and a range or the words to choose from

POSITIVE, NOT_NEGATIVE, FRACTION, COUNT, ANY = "above 0", "0 or more", "in [0, 1)", "1 or more", ""
_NUMBER = (float, int)

OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    kind.__name__.lower(): kind
    for kind in vars(optim).values()
    if isinstance(kind, type) and issubclass(kind, optim.Optimizer) and "lr" in inspect.signature(kind).parameters
}  # those with a learning rate: Lookahead goes around another one

SCHEDULES: dict[str, dict[str, Check]] = {
    "constant": {},
    "step": {"every": (_NUMBER, POSITIVE), "gamma": (_NUMBER, POSITIVE)},
    "multistep": {"milestones": ((list, tuple), ANY), "gamma": (_NUMBER, POSITIVE)},
    "linear": {"end": (_NUMBER, NOT_NEGATIVE)},
    "cosine": {"end": (_NUMBER, NOT_NEGATIVE)},
    "onecycle": {"peak": (_NUMBER, FRACTION), "start": (_NUMBER, POSITIVE), "end": (_NUMBER, NOT_NEGATIVE)},
    "piecewise": {"epochs": ((list, tuple), ANY), "factors": ((list, tuple), ANY)},
}
STRETCHED = ("linear", "cosine", "onecycle", "piecewise")  # those that run to the last epoch
_NEEDED = {"step": ("every", "gamma"), "multistep": ("milestones", "gamma"), "piecewise": ("epochs", "factors")}

AUGMENTATION: dict[str, Check] = {
    "translate": ((int,), NOT_NEGATIVE),
    "flip": ((str,), ("none", "random", "alternating")),
    "cutout": ((int,), NOT_NEGATIVE),
    "brightness": (_NUMBER, NOT_NEGATIVE),
    "contrast": (_NUMBER, NOT_NEGATIVE),
}


def check(where: str, key: str, value: Any, rule: Check) -> None:
    """Raises TypeError or ValueError, naming key, expectation and value, where ``value`` breaks ``rule``."""
    types, limits = rule
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        expected = " or ".join("None" if kind is type(None) else kind.__name__ for kind in types)
        raise TypeError(f"{where}: {key} must be {expected}, got {value!r} ({type(value).__name__})")
    if isinstance(limits, tuple):
        if value not in limits:
            raise ValueError(f"{where}: {key} must be one of {', '.join(limits)}, got {value!r}")
        return
    if not limits or not isinstance(value, (int, float)):
        return
    fits = {POSITIVE: value > 0, NOT_NEGATIVE: value >= 0, FRACTION: 0 <= value < 1, COUNT: value >= 1}[limits]
    if not fits or not math.isfinite(value):
        raise ValueError(f"{where}: {key} must be {limits}, got {value!r}")


def check_keys(where: str, table: Mapping[str, Any], rules: Mapping[str, Check]) -> None:
    """Every key of ``table`` against its rule."""
    for key, value in table.items():
        if key not in rules:
            raise ValueError(f"{where}: unknown key {key!r}, known are {', '.join(rules)}")
        check(where, key, value, rules[key])


def put(values: dict[str, Any], path: str, value: Any, where: str) -> None:
    """values["a"]["b"] = value of the path "a.b". Raises ValueError where "a" is no table."""
    *tables, last = path.split(".")
    at: Any = values
    for depth, name in enumerate(tables):
        at = at.get(name)
        if not isinstance(at, dict):
            raise ValueError(f"{where}: {path}: there is no table {'.'.join(tables[: depth + 1])!r}")
    at[last] = value


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found


# ---- optimizers ----


def optimizer_sets(optimizer: Table) -> dict[str | None, Table]:
    """The table of each parameter set; {None: table} where one optimizer has all parameters."""
    if "name" in optimizer:
        return {None: optimizer}
    return dict(optimizer.items())


def check_optimizers(optimizer: Table) -> None:
    """The table of one optimizer, or those of several sets of parameters."""
    if not optimizer:
        raise ValueError("config: optimizer needs a name and options")
    for name, table in optimizer_sets(optimizer).items():
        if name is None:
            _check_optimizer("config: optimizer", table, {})
        elif not isinstance(table, dict):
            raise TypeError(f"config: optimizer must have a name, or be tables by parameter set; {name} is {table!r}")
        else:
            _check_optimizer(f"config: optimizer.{name}", table, {"epochs": (_NUMBER, POSITIVE)})


def _check_optimizer(where: str, table: Table, more: Mapping[str, Check]) -> None:
    kind = table.get("name")
    if not isinstance(kind, str) or kind.lower() not in OPTIMIZERS:
        raise ValueError(f"{where}: name must be one of {', '.join(sorted(OPTIMIZERS))}, got {kind!r}")
    rules = {"name": ((str,), ANY), **optimizer_options(kind), **more}
    check_keys(where, table, rules)
    if table.get("nesterov") and table.get("momentum", 1) == 0:
        raise ValueError(f"{where}: nesterov needs a momentum above 0, got 0")


def optimizer_options(kind: str) -> dict[str, Check]:
    """The options that an optimizer's class takes, and their types by their defaults."""
    rules: dict[str, Check] = {}
    for name, parameter in inspect.signature(OPTIMIZERS[kind.lower()]).parameters.items():
        default = parameter.default
        if name == "params" or default is inspect.Parameter.empty:
            continue
        if isinstance(default, bool):
            rules[name] = ((bool,), ANY)
        elif name == "lr":
            rules[name] = (_NUMBER, NOT_NEGATIVE)
        elif name == "momentum":
            rules[name] = (_NUMBER, FRACTION)
        elif name == "weight_decay":
            rules[name] = (_NUMBER, NOT_NEGATIVE)
        elif isinstance(default, int):
            rules[name] = ((int,), ANY)
        elif isinstance(default, float):
            rules[name] = (_NUMBER, ANY)
        elif isinstance(default, tuple):
            rules[name] = ((list, tuple), ANY)
        else:
            rules[name] = ((str, float, int, bool, type(None)), ANY)
    return rules


# ---- schedules ----


def check_schedule(schedule: Table, epochs: int) -> None:
    """A schedule's table, and that it is longer than its warm-up."""
    where, name = "config: schedule", schedule.get("name")
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ValueError(f"{where}: name must be one of {', '.join(SCHEDULES)}, got {name!r}")
    check_keys(where, schedule, {"name": ((str,), ANY), "warmup": (_NUMBER, NOT_NEGATIVE), **SCHEDULES[name]})
    missing = [key for key in _NEEDED.get(name, ()) if key not in schedule]
    if missing:
        raise ValueError(f"{where}: {name} needs {missing[0]}")
    warmup = schedule.get("warmup", 0)
    if warmup and epochs and warmup >= epochs:
        raise ValueError(f"{where}: {epochs} epochs are not longer than the warm-up of {warmup}")
    for key in ("epochs", "factors", "milestones"):
        for number in schedule.get(key, ()):
            check(where, f"each of {key}", number, (_NUMBER, NOT_NEGATIVE))
    if name == "piecewise":
        at, factors = list(schedule["epochs"]), list(schedule["factors"])
        if len(at) != len(factors) or len(at) < 2 or sorted(set(at)) != at:
            raise ValueError(
                f"{where}: piecewise needs two or more increasing epochs and a factor for each, got {at} and {factors}"
            )


def check_set_epochs(optimizer: Table, schedule: Table) -> None:
    """That a set of parameters that is trained for some of the epochs only is trained for longer than the warm-up."""
    warmup = schedule.get("warmup", 0)
    for name, table in optimizer_sets(optimizer).items():
        if warmup and name is not None and table.get("epochs", math.inf) <= warmup:
            raise ValueError(
                f"config: optimizer.{name}: {table['epochs']} epochs are not longer than the warm-up of {warmup}"
            )


def check_augmentation(augmentation: Table) -> None:
    """The table of augmentations."""
    check_keys("config: augmentation", augmentation, AUGMENTATION)
