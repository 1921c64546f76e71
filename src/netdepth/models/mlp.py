"""The multilayer perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal

from torch import Generator, Tensor, nn

from netdepth.errors import BadInput
from netdepth.models.init import Init, initialise
from netdepth.models.network import MODELS, Network

__all__ = ["MLP", "mlp"]

Activation = Literal["relu", "gelu", "tanh"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
MAX_WIDTH, MAX_DEPTH = 65_536, 10_000


class MLP(Network):
    """Hidden layers of the given widths, then a linear head; depth = hidden layers + 1."""

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        hidden: Sequence[int],
        activation: Activation,
        dropout: float,
    ) -> None:
        super().__init__(input_shape, num_classes, depth=len(hidden) + 1)
        channels, height, width = input_shape
        sizes = [channels * height * width, *hidden]
        self.hidden = nn.ModuleList(nn.Linear(n, m) for n, m in itertools.pairwise(sizes))
        self.head = nn.Linear(sizes[-1], num_classes)
        self.activation = _ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)

    def features(self, x: Tensor) -> Tensor:
        """What the head sees: uint8 ``[B, C, H, W]`` to ``[B, last width]``."""
        h: Tensor = self.normalize(x).flatten(1)
        for layer in self.hidden:
            h = self.dropout(self.activation(layer(h)))
        return h

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


@MODELS.register("mlp", example={"hidden": [16, 8]})
def mlp(
    input_shape: tuple[int, int, int],
    num_classes: int,
    generator: Generator,
    *,
    hidden: Annotated[list[int] | None, "widths of the hidden layers; null: use width and depth"] = None,
    width: Annotated[int | None, "units of every hidden layer, together with depth"] = None,
    depth: Annotated[int | None, "weight layers, output layer included"] = None,
    activation: Annotated[Activation, "nonlinearity after each hidden layer"] = "relu",
    init: Annotated[Init, "initialisation of the weights"] = "default",
    dropout: Annotated[float, "probability that a hidden unit is dropped in training"] = 0.0,
) -> MLP:
    """Multilayer perceptron: a list of hidden widths, or width x depth.

    Raises:
        BadInput: neither or both ways of giving the widths, a width or depth out of range.
    """
    if hidden is None:
        if width is None or depth is None:
            raise BadInput("model mlp needs hidden (e.g. [256,128]) or both width and depth")
        if not 1 <= depth <= MAX_DEPTH:
            raise BadInput(f"model.depth = {depth} is out of range; it takes 1 to {MAX_DEPTH}")
        hidden = [width] * (depth - 1)
    elif width is not None or depth is not None:
        raise BadInput(
            f"model mlp has hidden = {hidden} and also width or depth; give one or the other (--set model.hidden=null)"
        )
    for units in [*hidden, *([width] if width is not None else [])]:
        if not 1 <= units <= MAX_WIDTH:
            raise BadInput(f"hidden width {units} is out of range; it takes 1 to {MAX_WIDTH}")
    if not 0 <= dropout < 1:
        raise BadInput(f"model.dropout = {dropout} is out of range; it takes 0 up to, not including, 1")
    model = MLP(input_shape, num_classes, hidden, activation, dropout)
    initialise(model, init, activation, generator)
    return model
