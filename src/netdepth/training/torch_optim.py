"""Optimizers as PyTorch's users write them: a class of `torch.optim`'s kind, or a function that makes one or several.

    OPTIMIZERS.register("rmsprop")(torch.optim.RMSprop)

They work on the parameters of one network, each with its shape, where our own work on one flat vector. Their state is
whatever they keep of each parameter and in their groups; it is saved and restored without rounding, in the same memory
layout, so that a continued run has the same bits.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from netdepth.errors import BadInput, NetdepthError
from netdepth.registry import required
from netdepth.training.stack import FlatParameter, ParameterGroup

__all__ = ["TorchOptimizer", "adapted", "trial_parameter"]

LISTS = ("params", "parameters")
"""A function whose first parameter is called so is given the list of parameters, any other one the flat vector."""
HOW = {"foreach", "fused", "capturable", "differentiable"}
"""Parameters of PyTorch's classes that say how an update is computed and not which: no settings."""
PLAIN = {"bool": (bool, torch.int64), "int": (int, torch.int64), "float": (float, torch.float64)}
"""Python's numbers in an optimizer's state, and the tensors that hold them exactly."""

Made = torch.optim.Optimizer | Iterable[torch.optim.Optimizer]


def adapted(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a user registers as an optimizer, as a function of the flat parameter; one that is so already as it is."""
    is_class = isinstance(function, type) and issubclass(function, torch.optim.Optimizer)
    if not is_class and (required(function) or [""])[0] not in LISTS:
        return function
    make: Callable[..., Made] = functools.partial(_of_class, function) if is_class else function

    def component(flat: nn.Parameter, **settings: Any) -> TorchOptimizer:
        return TorchOptimizer(flat, make, settings, function.__name__)

    functools.update_wrapper(component, function, updated=())
    if function.__module__.startswith("torch."):  # whose docstrings are manual pages
        first = (inspect.getdoc(function) or "").partition("\n")[0]
        component.__doc__ = f"{first}\n\n`{function.__module__}.{function.__name__}` as it is."
    signature = inspect.signature(function)
    kept = [p for p in signature.parameters.values() if p.name not in HOW]
    component.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return component


def _of_class(kind: Callable[..., torch.optim.Optimizer], parameters: list[nn.Parameter], **settings: Any) -> Made:
    """One optimizer for all ``parameters``. A class that takes matrices alone, as Muon does, gets those, and AdamW with
    the same lr the others (Jordan et al. 2024, "Muon": biases and scales by AdamW)."""
    try:
        return kind(parameters, **settings)
    except ValueError:
        matrices, others = ([p for p in parameters if (p.dim() == 2) == wanted] for wanted in (True, False))
        if matrices and others and "lr" in settings:
            with contextlib.suppress(ValueError):
                return kind(matrices, **settings), torch.optim.AdamW(others, lr=settings["lr"])
        raise


class TorchOptimizer:
    """Optimizers of PyTorch's kind as one `netdepth.training.optim.Optimizer`.

    ``make`` gets the parameters of the network in ``flat`` and the ``settings``. A schedule multiplies the learning
    rate of every group; ``lr`` is the highest of them. Groups are divided where fine-tuning has rates of its own.

    Raises:
        BadInput: several networks in one vector; a refused setting; a group without lr; parameters left out.
    """

    def __init__(self, flat: nn.Parameter, make: Callable[..., Made], settings: Mapping[str, Any], name: str) -> None:
        self.name = name
        self.parameters: dict[str, nn.Parameter] = dict(getattr(flat, "named", {})) or {"weight": flat}
        if getattr(flat, "replicas", 1) > 1:
            raise BadInput(f"optimizer {name} works on one network; train its seeds one at a time")
        try:
            made = make(list(self.parameters.values()), **settings)
            self.optimizers = [made] if isinstance(made, torch.optim.Optimizer) else list(made)
            rates = [float(group["lr"]) for group in self._param_groups()]
        except NetdepthError:
            raise
        except KeyError as error:
            raise BadInput(f"optimizer {name} has a parameter group without {error}; a schedule needs it") from None
        except Exception as error:
            raise BadInput(f"optimizer {name} cannot be made: {' '.join(str(error).split())}") from error
        mine = {id(p) for group in self._param_groups() for p in group["params"]}
        if left := [key for key, p in self.parameters.items() if id(p) not in mine]:
            raise BadInput(f"optimizer {name} leaves out {', '.join(left)}; freeze stages with start_from.freeze")
        self.lr = max(rates)
        self._places = _places(flat, self.parameters)
        self._rates: list[tuple[dict[str, Any], float]] = []
        for optimizer in self.optimizers:
            divided = [part for group in optimizer.param_groups for part in self._divided(group)]
            optimizer.param_groups[:] = [group for group, _ in divided]
            self._rates += [(g, (float(g["lr"]) / self.lr if self.lr else 1.0) * factor) for g, factor in divided]
        self._memory = [p.data_ptr() for p in self.parameters.values()]

    def _param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def _divided(self, group: dict[str, Any]) -> Iterator[tuple[dict[str, Any], float]]:
        """``group`` as one for each `ParameterGroup` that it reaches into, with the factor on its rate."""
        together: dict[int, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            together.setdefault(id(self._places[id(parameter)]), []).append(parameter)
        for parameters in together.values():
            yield {**group, "params": parameters}, self._places[id(parameters[0])].factor

    def step(self, lr: float) -> None:
        """One update with learning rate ``lr``.

        Raises:
            BadInput: an optimizer that needs the loss again, or puts new tensors in the place of the weights.
        """
        for group, share in self._rates:
            group["lr"] = lr * share
        frozen = [(p, p.grad) for p in self.parameters.values() if self._places[id(p)].frozen]
        for parameter, _ in frozen:
            parameter.grad = None  # what PyTorch's optimizers pass over
        try:
            with torch.no_grad():
                for optimizer in self.optimizers:
                    optimizer.step()
        except TypeError as error:
            raise BadInput(f"optimizer {self.name} cannot take a step from gradients alone: {error}") from error
        finally:
            for parameter, gradient in frozen:
                parameter.grad = gradient
        if self._memory != [p.data_ptr() for p in self.parameters.values()]:
            raise BadInput(f"optimizer {self.name} replaces the weights' memory; update them in place (add_, copy_)")

    # --- checkpoints ---

    @property
    def state(self) -> dict[str, Tensor]:
        """All that was kept so far, by ``parameter/name:kind`` and ``group N of M/name:kind``; it grows with the first
        step. A change of these tensors does not change the optimizer: `load` does."""
        found: dict[str, Tensor] = {}
        names = {id(parameter): key for key, parameter in self.parameters.items()}
        for number, optimizer in enumerate(self.optimizers):
            for parameter, kept in optimizer.state.items():
                owner = names.get(id(parameter))
                if owner is None or not isinstance(kept, Mapping):
                    raise BadInput(f"optimizer {self.name} keeps state outside its parameters, which is not saved")
                for key, value in kept.items():
                    found |= self._encoded(f"{owner}/{key}", value, self.parameters[owner])
            for index, group in enumerate(optimizer.param_groups):
                for key, value in group.items():
                    if key not in ("params", "lr", *HOW) and isinstance(value, bool | int | float | Tensor):
                        found |= self._encoded(f"group {index} of {number}/{key}", value, None)
        return found

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Take up a saved `state`."""
        owners = {id(p): o for o in self.optimizers for group in o.param_groups for p in group["params"]}
        for optimizer in self.optimizers:
            optimizer.state.clear()
        for label, tensor in saved.items():
            place, _, what = label.rpartition("/")
            key, _, kind = what.rpartition(":")
            parameter = self.parameters.get(place)
            if parameter is not None:
                owners[id(parameter)].state[parameter][key] = _decoded(tensor, kind, parameter)
            else:
                index, number = map(int, place.removeprefix("group ").split(" of "))
                self.optimizers[number].param_groups[index][key] = _decoded(tensor, kind, None)

    def _encoded(self, key: str, value: object, parameter: Tensor | None) -> dict[str, Tensor]:
        """A value of the state as a tensor that a file holds, by its name with the kind: ``laid`` lies in memory as its
        parameter does."""
        if isinstance(value, Tensor):
            same = parameter is not None and value.shape == parameter.shape and value.stride() == parameter.stride()
            kind = "laid" if same and not value.is_contiguous() else "tensor"
            return {f"{key}:{kind}": value.detach().contiguous()}
        if value is None:
            return {f"{key}:none": torch.zeros(())}
        if (kind := type(value).__name__) in PLAIN:
            return {f"{key}:{kind}": torch.tensor(value, dtype=PLAIN[kind][1])}
        raise BadInput(f"optimizer {self.name} keeps {key!r} as {type(value).__name__}, which a checkpoint cannot hold")


def _decoded(tensor: Tensor, kind: str, parameter: Tensor | None) -> Any:
    if kind == "none":
        return None
    if kind in PLAIN:
        return PLAIN[kind][0](tensor.item())
    if parameter is not None and kind == "laid":
        return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
    return tensor.to(parameter.device if parameter is not None and tensor.dim() else tensor.device, copy=True)


def _places(flat: nn.Parameter, parameters: Mapping[str, nn.Parameter]) -> dict[int, ParameterGroup]:
    """The group of ``flat`` (`FlatParameter.groups`) in which each parameter, by its id, lies; without groups one."""
    groups: tuple[ParameterGroup, ...] = getattr(flat, "groups", ())
    whole = ParameterGroup(((0, flat.numel()),))
    found: dict[int, ParameterGroup] = {}
    start = 0
    for parameter in parameters.values():
        inside = (group for group in groups if any(low <= start < high for low, high in group.spans))
        found[id(parameter)] = next(inside, whole)
        start += parameter.numel()
    return found


def trial_parameter() -> FlatParameter:
    """A flat parameter for trying an optimizer: a matrix and a bias, gradients zero."""
    flat = FlatParameter(torch.linspace(1.0, 2.0, 20))
    flat.grad = torch.zeros(20)
    shapes = {"weight": (4, 4), "bias": (4,)}
    values, gradients = (torch.split(tensor, [16, 4]) for tensor in (flat.data, flat.grad))
    flat.named = {key: nn.Parameter(value.view(shapes[key])) for key, value in zip(shapes, values, strict=True)}
    for parameter, gradient in zip(flat.named.values(), gradients, strict=True):
        parameter.grad = gradient.view(parameter.shape)
    return flat
