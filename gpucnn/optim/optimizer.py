"""What all optimizers share: groups of parameters with options of their own, state by parameter, saving."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gpucnn.autograd import enable_grad
from gpucnn.nn.state import as_tensor_or_array, clear_grad
from gpucnn.optim.memory import kept_place, zeros_like
from gpucnn.tensor import Tensor

Params = Iterable[Tensor] | Iterable[dict[str, Any]]


class Optimizer:
    """The base of optimizers; ``params`` are tensors, or dicts with ``params`` and options that differ from
    ``defaults``.

    ``param_groups`` is a list of dicts (``params`` and every option), ``state`` maps a parameter to its dict of tensors
    and numbers. Subclasses define ``step`` and ``check_group``.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        if isinstance(params, (Tensor, Mapping, str)):
            raise TypeError(
                f"{self.name}: params must be an iterable of tensors or of dicts, got {type(params).__name__}"
            )
        self._check_ordered(params)
        given: list[Any] = list(params)
        if not given:
            raise ValueError(f"{self.name}: got an empty parameter list")
        self.defaults = defaults
        self.state: dict[Tensor, dict[str, Any]] = {}
        self.param_groups: list[dict[str, Any]] = []
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)

    @property
    def name(self) -> str:
        """The name of the class, for messages."""
        return type(self).__name__

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raises ValueError for options that are out of range."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all parameters that have a gradient; ``closure`` computes the loss anew and its value is
        returned.
        """
        raise NotImplementedError(f"{self.name} is missing a step method")

    def prepare(self) -> None:
        """The host's part of the next step, for a captured step that is replayed afterwards: see
        :func:`gpucnn.optim.prepare_all`.
        """
        raise NotImplementedError(f"{self.name} is missing a prepare method, so its steps cannot be captured")

    @staticmethod
    def evaluate(closure: Callable[[], Any] | None) -> Any:
        """Calls a step's closure with recording on."""
        if closure is None:
            return None
        with enable_grad():
            return closure()

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Adds a group: a dict with ``params`` (a tensor or an iterable of them) and options; the rest are the
        defaults.

        Raises TypeError for what is no leaf tensor, ValueError for an unknown option or a parameter that is in twice.
        """
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise TypeError(f"{self.name}: a parameter group must be a dict with 'params', got {param_group!r}")
        params = param_group["params"]
        self._check_ordered(params)
        group = {**self.defaults, **param_group, "params": [params] if isinstance(params, Tensor) else list(params)}
        unknown = [key for key in param_group if key not in self.defaults and key not in ("params", "initial_lr")]
        if unknown:
            raise ValueError(f"{self.name}: unknown option {unknown[0]!r}; known are {', '.join(self.defaults)}")
        seen = {id(parameter) for other in self.param_groups for parameter in other["params"]}
        for parameter in group["params"]:
            if not isinstance(parameter, Tensor):
                raise TypeError(f"{self.name}: expected tensors to optimize, got {type(parameter).__name__}")
            if not parameter.is_leaf:
                raise ValueError(
                    f"{self.name}: can only optimize leaf tensors, got the result of {parameter.grad_fn!r}"
                )
            if id(parameter) in seen:
                raise ValueError(f"{self.name}: a parameter of shape {tuple(parameter.shape)} appears twice")
            seen.add(id(parameter))
        self.check_group(group)
        self.param_groups.append(group)

    def _check_ordered(self, params: Any) -> None:
        if isinstance(params, (set, frozenset)):
            raise TypeError(f"{self.name}: parameters must come in an order that stays the same, got a set")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients of all parameters, or fills them with zeros."""
        for group in self.param_groups:
            for parameter in group["params"]:
                clear_grad(parameter, set_to_none)

    # ---- saving ------------------------------------------------------------------------------------------------------

    def _numbered(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {index: {...}}, "param_groups": [{..., "params": [index, ...]}]}``; parameters go by their
        position.
        """
        parameters = self._numbered()
        index_of = {id(parameter): index for index, parameter in enumerate(parameters)}
        groups = []
        for group in self.param_groups:
            options = {key: value for key, value in group.items() if key != "params"}
            groups.append({**options, "params": [index_of[id(parameter)] for parameter in group["params"]]})
        state = {index: dict(self.state[p]) for index, p in enumerate(parameters) if p in self.state}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes options and state from :meth:`state_dict` of an optimizer over parameters of the same shapes, in the
        same order.

        Raises ValueError, and changes nothing, where groups, their sizes or the shapes of the state do not match.
        """
        try:
            saved_groups = [dict(group) for group in state_dict["param_groups"]]
            saved_state = {int(index): dict(entry) for index, entry in state_dict["state"].items()}
            indices = [[int(index) for index in group["params"]] for group in saved_groups]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{self.name}: not the state of an optimizer: {error!r}") from error
        sizes, own_sizes = [len(i) for i in indices], [len(group["params"]) for group in self.param_groups]
        if sizes != own_sizes:
            raise ValueError(
                f"{self.name}: the state has parameter groups of {sizes} parameters, this optimizer of {own_sizes}"
            )
        numbers = [index for group in indices for index in group]
        if len(set(numbers)) != len(numbers) or not set(saved_state) <= set(numbers):
            raise ValueError(
                f"{self.name}: the state numbers its parameters {numbers} and has state for {list(saved_state)}"
            )
        parameter_of = dict(zip(numbers, self._numbered(), strict=True))
        groups = [
            {**own, **{key: value for key, value in saved.items() if key != "params"}}
            for own, saved in zip(self.param_groups, saved_groups, strict=True)
        ]
        for group in groups:
            self.check_group(group)
        state = {
            parameter_of[index]: {
                key: self._restored(parameter_of[index], index, key, value) for key, value in entry.items()
            }
            for index, entry in saved_state.items()
        }
        for parameter, entry in state.items():
            known = self.state.get(parameter, {})
            for key, value in entry.items():
                entry[key] = kept_place(known.get(key), value)
        self.param_groups, self.state = groups, state

    def _restored(self, parameter: Tensor, index: int, key: str, value: Any) -> Any:
        """A value of the state: tensors of the parameter's shape laid out and placed like the parameter, ``step`` (in
        PyTorch's states a tensor) as a number.
        """
        if key == "step":
            return self._counted(index, value)
        if not hasattr(value, "__array__"):
            return value
        value = as_tensor_or_array(value)  # a tensor of PyTorch's is an array to NumPy
        if value is None:
            raise ValueError(f"{self.name}: {key} of parameter {index} is no array of numbers")
        if tuple(value.shape) != tuple(parameter.shape):
            raise ValueError(
                f"{self.name}: {key} of parameter {index} has shape {tuple(value.shape)},"
                f" the parameter {tuple(parameter.shape)}"
            )
        return zeros_like(parameter).copy_(value)

    def _counted(self, index: int, value: Any) -> int:
        try:
            count = int(value)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise ValueError(f"{self.name}: step of parameter {index} cannot be {value!r:.80}") from error
        if count < 0:
            raise ValueError(f"{self.name}: step of parameter {index} must not be negative, got {count}")
        return count

    def __repr__(self) -> str:
        lines = [f"{self.name} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def check_not_negative(optimizer: str, group: Mapping[str, Any], *names: str) -> None:
    """Raises ValueError for an option that is negative, infinite or no number."""
    for name in names:
        value = group[name]
        if not (isinstance(value, (int, float)) and value >= 0.0 and math.isfinite(value)):
            raise ValueError(f"{optimizer}: {name} must be a finite number, not negative, got {value!r}")
