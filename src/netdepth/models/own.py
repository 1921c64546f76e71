"""A model of the user's own: any class of networks with a constructor, or a function that returns one.

What the data decide is given to the parameters that are called so (`GIVEN`); all others are settings, as in every
component (`netdepth.registry`). The three positional parameters (input_shape, num_classes, generator) of a model
function may have any names.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Generator, nn

from netdepth.errors import BadInput

__all__ = ["GIVEN", "adapted"]

GIVEN = ("input_shape", "in_channels", "num_classes", "generator")
"""Parameters that get the data's values: (C, H, W), C, the number of classes; and torch's generator of the run."""
CONTEXT = ("input_shape", "num_classes", "generator")

N = TypeVar("N")
Shape = tuple[int, int, int]


def adapted(function: Callable[..., Any], finish: Callable[[nn.Module, Shape, int], N]) -> Callable[..., N]:
    """``function`` as a model function; ``finish`` makes the network of what it returns.

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
    by_position = _by_position(function, parameters)
    given = list(parameters)[:3] if by_position else [key for key in parameters if key in GIVEN]
    made_before: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def component(input_shape: Shape, num_classes: int, generator: Generator, **settings: Any) -> N:
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
        return finish(made, input_shape, num_classes)

    kinds = inspect.Parameter
    context = [kinds(key, kinds.POSITIONAL_OR_KEYWORD) for key in CONTEXT]
    own = [parameter for key, parameter in parameters.items() if key not in given]
    named = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    functools.update_wrapper(component, function, updated=())
    component.__signature__ = inspect.Signature([*context, *named])  # type: ignore[attr-defined]
    return component


def _by_position(function: Callable[..., Any], parameters: Any) -> bool:
    """Whether a model function takes (input_shape, num_classes, generator), under whatever names."""
    if isinstance(function, type):
        return False
    first = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:4]
    required = [p for p in first if p.default is p.empty]
    if len(required) != 3 or first[:3] != required:
        return False
    third = required[2]
    draws = third.annotation in (Generator, "Generator", "torch.Generator") or third.name.strip("_")[:1] in (
        "",
        "g",
        "r",
    )
    return draws or not {p.name for p in required} & set(GIVEN)
