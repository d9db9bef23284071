"""Optimizers whose step is one launch over all parameters that share options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpucnn.autograd import running_on
from gpucnn.layout import memory_view
from gpucnn.optim.memory import filled_like, matched, suits, zeros_like
from gpucnn.optim.optimizer import Optimizer
from gpucnn.tensor import Tensor

Array = Any


class FusedOptimizer(Optimizer):
    """The base of optimizers that keep ``step``, the number of steps, and arrays like the parameter in its state.

    Subclasses say which arrays (:meth:`arrays`), what one launch shares (:meth:`options`; weight decay is each
    parameter's own) and launch (:meth:`update`). Parameters without a gradient are left alone.
    """

    def arrays(self, group: Mapping[str, Any]) -> dict[str, float]:
        """The names of the arrays that the parameters of ``group`` need, and what they start from."""
        raise NotImplementedError

    def options(self, group: Mapping[str, Any], step: int) -> tuple[Any, ...]:
        """Numbers that are the same for all parameters of one launch; ``step`` counts from 1."""
        raise NotImplementedError

    def update(
        self,
        backend: Any,
        parameters: list[Array],
        gradients: list[Array],
        arrays: dict[str, list[Array]],
        weight_decays: list[float],
        options: tuple[Any, ...],
    ) -> None:
        """One launch."""
        raise NotImplementedError

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = self.evaluate(closure)
        for (device, _, names, options), members in self._launches().items():
            parameters = [parameter for parameter, _ in members]
            with running_on(device):
                self.update(
                    parameters[0].backend,
                    [memory_view(p.data) for p in parameters],
                    [matched(p.grad, p) for p in parameters if p.grad is not None],
                    {name: [memory_view(self.state[p][name].data) for p in parameters] for name in names},
                    [decay for _, decay in members],
                    options,
                )
            for parameter in parameters:
                parameter.modified()
                for name in names:
                    self.state[parameter][name].modified()
        return loss

    def _launches(self) -> dict[tuple[Any, ...], list[tuple[Tensor, float]]]:
        """Parameters with a gradient, and their weight decay, by what one launch can update: one device and dtype, the
        same arrays and equal options.
        """
        launches: dict[tuple[Any, ...], list[tuple[Tensor, float]]] = {}
        for group in self.param_groups:
            arrays = self.arrays(group)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                options = self.options(group, self._count(parameter, arrays))
                key = (parameter.device, parameter.dtype, tuple(arrays), options)
                launches.setdefault(key, []).append((parameter, float(group["weight_decay"])))
        return launches

    def _count(self, parameter: Tensor, arrays: Mapping[str, float]) -> int:
        """The number of this step; makes the arrays that are missing and brings along those that a move left behind."""
        state = self.state.setdefault(parameter, {})
        state["step"] = int(state.get("step", 0)) + 1
        for name, start in arrays.items():
            array = state.get(name)
            if array is None:
                state[name] = filled_like(parameter, start)
            elif not suits(array, parameter):
                state[name] = zeros_like(parameter).copy_(array)
        return state["step"]
