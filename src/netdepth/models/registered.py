"""Models by name, also of the user's own: any class of networks with a constructor, or a function that returns one.

What the data decide is given to the parameters that are called so (`GIVEN`); all others are settings, as in every
component (`netdepth.registry`). The three positional parameters (input_shape, num_classes, generator) of a model
function may have any names.
"""

from __future__ import annotations

import functools
import inspect
import typing
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from netdepth.errors import BadInput
from netdepth.models.network import Network
from netdepth.registry import Registry, required

__all__ = ["GIVEN", "MODELS", "OwnNetwork", "class_of"]

GIVEN = ("input_shape", "in_channels", "num_classes", "generator")
"""Parameters that get the data's values: (C, H, W), C, the number of classes; and torch's generator of the run."""
CONTEXT = ("input_shape", "num_classes", "generator")

Shape = tuple[int, int, int]


def adapted(function: Callable[..., Any]) -> Callable[..., Network]:
    """``function`` as a model function.

    Raises:
        BadInput: it is a network, not a class of networks; a parameter can be given by position only.
    """
    if isinstance(function, nn.Module):
        raise BadInput(
            f"what is registered is one network ({type(function).__name__}), whose weights would be the same for every "
            "seed; register its class, or a function that returns a new one"
        )
    if getattr(function, "__module__", "").startswith("netdepth."):
        return function
    name = getattr(function, "__qualname__", "the function")
    if isinstance(function, type) and not issubclass(function, nn.Module):
        raise BadInput(f"class {name} is registered as a model and is no nn.Module; derive it from torch.nn.Module")
    parameters = inspect.signature(function).parameters
    by_position = _by_position(function)
    given = list(parameters)[:3] if by_position else [key for key in parameters if key in GIVEN]
    made_before: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def component(input_shape: Shape, num_classes: int, generator: Generator, **settings: Any) -> Network:
        values = dict(zip(GIVEN, (input_shape, input_shape[0], num_classes, generator), strict=True))
        if by_position:
            made = function(input_shape, num_classes, generator, **settings)
        else:
            made = function(**{key: values[key] for key in given}, **settings)
        if not isinstance(made, nn.Module):
            raise BadInput(f"{name} returns {type(made).__name__}; a model is a torch.nn.Module")
        if made in made_before:
            raise BadInput(f"{name} returns the same network each time; it has to make a new one")
        made_before.add(made)
        return made if isinstance(made, Network) else OwnNetwork(made, input_shape, num_classes)

    kinds = inspect.Parameter
    context = [kinds(key, kinds.POSITIONAL_OR_KEYWORD) for key in CONTEXT]
    own = [parameter for key, parameter in parameters.items() if key not in given]
    named = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    functools.update_wrapper(component, function, updated=())
    component.__signature__ = inspect.Signature([*context, *named])  # type: ignore[attr-defined]
    return component


def _by_position(function: Callable[..., Any]) -> bool:
    """Whether a model function takes (input_shape, num_classes, generator), under whatever names."""
    names = required(function)
    if isinstance(function, type) or len(names) != 3:
        return False
    third = inspect.signature(function).parameters[names[2]]
    draws = "Generator" in str(third.annotation) or third.name.strip("_")[:1] in ("", "g", "r")
    return draws or not {*names} & {*GIVEN}


MODELS: Registry[Network] = Registry("model", adapted)
"""A model function takes (input_shape, num_classes, generator) and its own settings. Of users it takes any class of
networks, or a function that returns one."""


def class_of(name: str) -> type[Network]:
    """The class of the networks that the model called ``name`` builds, by the annotation of its function.

    Raises:
        BadInput: no model is called so.
    """
    function = MODELS.entry(name).function
    returned = getattr(function, "__wrapped__", function)
    if not isinstance(returned, type):
        try:
            returned = typing.get_type_hints(returned).get("return")
        except Exception:  # evaluating a user's annotations runs the user's code
            returned = None
    return returned if isinstance(returned, type) and issubclass(returned, Network) else Network


WEIGHT_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


class OwnNetwork(Network):
    """Any ``net`` of the user's as a `Network`: it gets normalised float images ``[B, C, H, W]`` and gives logits.

    ``depth`` is the one that ``net`` says, an attribute of that name, or else the number of its weight layers (linear
    and convolutional) that a pass goes through. ``head`` is the linear layer that gives the logits, if one does.
    """

    def __init__(self, net: nn.Module, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(input_shape, num_classes, depth=1)
        self.net = net
        self.head_path: str | None = None
        layers = self._try_out()
        said = getattr(net, "depth", None)
        self.depth = said if type(said) is int and said >= 1 else max(1, layers)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(self.normalize(x))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """The input of the linear layer that gives the logits.

        Raises:
            BadInput: none does.
        """
        seen: list[Tensor] = []
        hook = self.last_linear().register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            self(x)
        finally:
            hook.remove()
        return seen[-1]

    def last_linear(self) -> nn.Module:
        """The linear layer that gives the logits.

        Raises:
            BadInput: none does.
        """
        if self.head_path is None:
            raise BadInput(
                f"the logits of {type(self.net).__name__} do not come from a linear layer, so it has no features; "
                "end its forward pass with an nn.Linear"
            )
        return self.get_submodule(self.head_path)

    def stage_paths(self) -> dict[str, tuple[str, ...]]:
        """The modules and parameters of the network by name, in the order in which they were made, the head last."""
        paths: dict[str, tuple[str, ...]] = {}

        def add(module: nn.Module, path: str) -> None:
            for name, _ in module.named_parameters(path, recurse=False):
                paths[name.removeprefix("net.")] = (name,)
            for name, child in module.named_children():
                inner = f"{path}.{name}"
                if f"{self.head_path}".startswith(f"{inner}."):
                    add(child, inner)
                elif any(True for _ in child.parameters()):
                    paths[inner.removeprefix("net.")] = (inner,)

        if self.head_path == "net":
            return {"net": ("net",)}
        add(self.net, "net")
        if self.head_path is not None:
            head = self.head_path.removeprefix("net.")
            paths[head] = paths.pop(head)
        return paths

    @torch.no_grad()
    def _try_out(self) -> int:
        """One pass of two black images: the number of weight layers, and ``head_path``.

        Raises:
            BadInput: what comes out are no logits.
        """
        ran: dict[nn.Module, tuple[object, object]] = {}

        def keep(module: nn.Module, args: tuple[object, ...], out: object) -> None:
            ran[module] = (args[0] if args else None, out)

        hooks = [module.register_forward_hook(keep) for module in self.net.modules()]
        training = self.net.training
        try:
            logits = self.eval()(torch.zeros(2, *self.input_shape, dtype=torch.uint8))
        finally:
            self.train(training)
            for hook in hooks:
                hook.remove()
        name, wanted = type(self.net).__name__, [2, self.num_classes]
        if not isinstance(logits, Tensor):
            raise BadInput(
                f"{name} gives {type(logits).__name__}; a network gives logits, a tensor {wanted} of numbers"
            )
        if list(logits.shape) != wanted or not logits.is_floating_point():
            raise BadInput(
                f"{name} gives {logits.dtype} {list(logits.shape)} for 2 images of {self.num_classes} classes, not "
                f"logits {wanted}; a parameter called num_classes gets the number of classes"
            )
        if self.num_classes > 1 and bool((logits >= 0).all()) and torch.allclose(logits.sum(1), torch.ones(2)):
            raise BadInput(f"{name} gives probabilities, not logits; leave out its last softmax: the objective has it")
        for path, module in self.named_modules():
            first, out = ran.get(module, (None, None))
            flat = isinstance(first, Tensor) and first.dim() == 2
            if isinstance(module, nn.Linear) and out is logits and flat:
                self.head_path = path
        return sum(isinstance(module, WEIGHT_LAYERS) for module in ran)
