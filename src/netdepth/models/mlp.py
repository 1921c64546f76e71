"""The multilayer perceptron, plain or residual, with the remedies proposed against depth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor, nn

from netdepth.config import require
from netdepth.errors import BadInput
from netdepth.models.init import Init, initialise, rescale_fixup
from netdepth.models.network import Network, ReluChain
from netdepth.models.registered import MODELS

__all__ = ["MLP", "mlp"]

Activation = Literal["relu", "gelu", "tanh"]
Shortcut = Literal["none", "identity"]
Norm = Literal["none", "batch", "layer"]
BranchScale = Literal["1", "blocks^-1/2", "rezero", "fixup"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
_NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
MAX_WIDTH, MAX_DEPTH = 65_536, 10_000


class MLP(Network):
    """An input layer, blocks of ``block_layers`` hidden layers each, a linear head; depth = hidden layers + 1.

    With a the activation (and dropout), a block of k layers maps

        h <- h + s * a(norm(W_k ... a(norm(W_1 h + b_1)) ... + b_k))

    (the shortcut of He et al. 2016, "Deep Residual Learning", §3.2, eq. 1, with every activation
    inside the branch) or, with ``pre_activation`` (He et al. 2016, "Identity Mappings", Fig. 4e),

        h <- h + s * (W_k a(norm(... W_1 a(norm(h)) + b_1 ...)) + b_k)

    with a last a(norm(h)) before the head. The plain twin is the same without ``h +`` and s: the
    same parameters, drawn in the same way. Without skips it makes no difference where a block
    begins: the two plain twins are the same function. The scale s of a branch is

    - "1";
    - "blocks^-1/2": keeps a sum of that many branches from exploding (Hayou et al. 2021, "Stable
      ResNet"; ReLU branches that are activated before the sum share a mean and still grow, slowly).
      It is accepted for a plain net, which has no branch, and does nothing;
    - "rezero": a learned scalar per block, 0 at first (Bachlechner et al. 2020, "ReZero");
    - "fixup": a learned scalar per block, 1 at first; a learned scalar, 0 at first, added to what
      the input of each linear layer of a block; and the start of `rescale_fixup` (Zhang et al. 2019,
      "Fixup", §3). As in the paper the last activation follows the sum, h <- a(h + s * (W_k ... +
      b_k)): before it, a ReLU would block every gradient from the zero W_k. The scalars that the
      paper adds before activations are the layers' biases here.

    Over their twin, "rezero" has ``blocks`` parameters more and "fixup" ``blocks * (1 + k)``.
    """

    replayable = True
    handwritten = True
    gains_from_bf16 = False

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        hidden: Sequence[int],
        activation: Activation,
        dropout: float,
        *,
        shortcut: Shortcut = "none",
        block_layers: int = 1,
        norm: Norm = "none",
        branch_scale: BranchScale = "1",
        pre_activation: bool = False,
    ) -> None:
        super().__init__(input_shape, num_classes, depth=len(hidden) + 1)
        channels, height, width = input_shape
        sizes = [channels * height * width, *hidden]
        self.hidden = nn.ModuleList(nn.Linear(n, m) for n, m in itertools.pairwise(sizes))
        self.head = nn.Linear(sizes[-1], num_classes)
        self.norms = nn.ModuleList(_NORMS[norm](units) for units in hidden if norm != "none")
        self.activation = _ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)

        self.shortcut, self.block_layers, self.norm = shortcut, block_layers, norm
        self.branch_scale, self.pre_activation = branch_scale, pre_activation
        self.blocks = (len(hidden) - 1) // block_layers if len(set(hidden)) == 1 else 0
        """Blocks of the net and of its twin; 0 also where the widths differ and there can be none."""
        scaled = branch_scale == "blocks^-1/2" and shortcut == "identity" and self.blocks
        self.branch_factor: float = self.blocks**-0.5 if scaled else 1.0
        self.alpha: nn.Parameter | None = None
        """ReZero's scalars ``[blocks]``."""
        self.multiplier: nn.Parameter | None = None
        self.offset: nn.Parameter | None = None
        """Fixup's scalars: ``multiplier`` ``[blocks]``, ``offset`` ``[blocks * k]`` in the order of the layers."""
        if branch_scale == "rezero" and self.blocks:
            self.alpha = nn.Parameter(torch.zeros(self.blocks))
        elif branch_scale == "fixup" and self.blocks:
            self.multiplier = nn.Parameter(torch.ones(self.blocks))
            self.offset = nn.Parameter(torch.zeros(self.blocks * block_layers))

    def stage_paths(self) -> dict[str, tuple[str, ...]]:
        """``layer1``, ``layer2`` and so on, each with its norm, and ``head``. The scalars of ReZero and Fixup, one
        vector for all blocks, count as part of the last layer."""
        layers: dict[str, tuple[str, ...]] = {
            f"layer{i + 1}": (f"hidden.{i}", f"norms.{i}") for i in range(len(self.hidden))
        }
        if layers:
            layers[f"layer{len(self.hidden)}"] += ("alpha", "multiplier", "offset")
        return {**layers, "head": ("head",)}

    def relu_chain(self) -> ReluChain | None:
        """Of a ReLU MLP without normalisation, dropout, learned scales and changes by a subclass."""
        constant_scale = self.shortcut == "none" or self.branch_scale in ("1", "blocks^-1/2")
        relu = type(self.activation) is nn.ReLU and not self.pre_activation
        if type(self) is not MLP or not (relu and constant_scale and self.norm == "none" and self.dropout.p == 0):
            return None
        layers = (*(f"hidden.{i}" for i in range(len(self.hidden))), "head")
        return ReluChain(layers, self.block_layers if self.shortcut == "identity" else 0, self.branch_factor)

    def branches(self) -> list[list[nn.Linear]]:
        """The linear layers of each block, in order."""
        layers = [layer for layer in self.hidden if isinstance(layer, nn.Linear)]
        return [layers[i : i + self.block_layers] for i in range(1, len(layers), self.block_layers)]

    def features(self, x: Tensor) -> Tensor:
        """The input of the head: uint8 ``[B, C, H, W]`` to ``[B, last width]``."""
        h: Tensor = self.normalize(x).flatten(1)
        if not self.hidden:
            return h
        h = self.hidden[0](h)
        if not self.pre_activation:
            h = self._activate(0, h)
        learned = self.alpha if self.alpha is not None else self.multiplier
        scales = None if learned is None else learned.unbind()
        offsets = None if self.offset is None else self.offset.unbind()
        activate_sum = self.branch_scale == "fixup" and not self.pre_activation
        activate_branch = not (activate_sum or self.pre_activation)
        for block, first in enumerate(range(1, len(self.hidden), self.block_layers)):
            last = first + self.block_layers - 1
            branch = h
            for i in range(first, last + 1):
                if self.pre_activation or i > first:
                    branch = self._activate(i - 1, branch)
                if offsets is not None:
                    branch = branch + offsets[i - 1]
                branch = self.hidden[i](branch)
            if activate_branch:
                branch = self._activate(last, branch)
            if self.shortcut == "none":
                h = branch
            elif scales is not None:
                h = torch.addcmul(h, scales[block], branch)
            else:
                h = torch.add(h, branch, alpha=self.branch_factor)
            if activate_sum:
                h = self._activate(last, h)
        return self._activate(-1, h) if self.pre_activation else h

    def _activate(self, i: int, h: Tensor) -> Tensor:
        """The norm of hidden layer ``i`` (where there is one), the activation, dropout."""
        if self.norm != "none":
            h = self.norms[i](h)
        dropped: Tensor = self.dropout(self.activation(h))
        return dropped


@MODELS.register(
    "mlp",
    example={"hidden": [16, 8]},
    added=("shortcut", "block_layers", "norm", "branch_scale", "pre_activation"),
)
def mlp(
    input_shape: tuple[int, int, int],
    num_classes: int,
    generator: Generator,
    *,
    hidden: Annotated[list[int] | None, "widths of the hidden layers; null: use width and depth"] = None,
    width: Annotated[int | None, "units of every hidden layer, together with depth"] = None,
    depth: Annotated[int | None, "weight layers, output layer included: 2 + block_layers * blocks"] = None,
    activation: Annotated[Activation, "nonlinearity after each hidden layer"] = "relu",
    init: Annotated[Init, "initialisation of the weights"] = "default",
    dropout: Annotated[float, "probability that a hidden unit is dropped in training"] = 0.0,
    shortcut: Annotated[Shortcut, "identity: a skip around each block; none: the plain twin"] = "none",
    block_layers: Annotated[int, "hidden layers per block"] = 1,
    norm: Annotated[Norm, "normalisation after each hidden layer, before its activation"] = "none",
    branch_scale: Annotated[BranchScale, "factor of what a block adds to its skip"] = "1",
    pre_activation: Annotated[bool, "norm and activation before the layers of a block, not after"] = False,
) -> MLP:
    """Multilayer perceptron, plain or residual: a list of hidden widths, or width x depth.

    Raises:
        BadInput: neither or both ways of giving the widths, a width or depth out of range, a depth
            that blocks do not fill, a skip between unequal widths, remedies that exclude each other.
    """
    if hidden is None:
        if width is None or depth is None:
            raise BadInput("model mlp needs hidden (e.g. [256,128]) or both width and depth")
        require(1 <= depth <= MAX_DEPTH, "model.depth", depth, f"1 to {MAX_DEPTH}")
        hidden = [width] * (depth - 1)
    elif width is not None or depth is not None:
        raise BadInput(
            f"model mlp has hidden = {hidden} and also width or depth; give one or the other (--set model.hidden=null)"
        )
    for units in [*hidden, *([width] if width is not None else [])]:
        if not 1 <= units <= MAX_WIDTH:
            raise BadInput(f"hidden width {units} is out of range; it takes 1 to {MAX_WIDTH}")
    require(0 <= dropout < 1, "model.dropout", dropout, "0 up to, not including, 1")
    _check_blocks(hidden, shortcut, block_layers)
    _check_remedies(shortcut, init, norm, branch_scale)
    model = MLP(
        input_shape,
        num_classes,
        hidden,
        activation,
        dropout,
        shortcut=shortcut,
        block_layers=block_layers,
        norm=norm,
        branch_scale=branch_scale,
        pre_activation=pre_activation,
    )
    initialise(model, init, activation, generator)
    if branch_scale == "fixup":
        rescale_fixup(model.branches(), model.head)
    return model


def _check_blocks(hidden: Sequence[int], shortcut: Shortcut, k: int) -> None:
    """Refuse hidden layers that do not make an input layer and blocks of ``k``, as 2 + k * blocks counts them."""
    require(1 <= k < MAX_DEPTH, "model.block_layers", k, f"1 to {MAX_DEPTH - 1}")
    if shortcut == "identity" and len(set(hidden)) > 1:
        raise BadInput(
            f"model.shortcut = 'identity' adds a block's input to its output: hidden = {hidden} has unequal "
            "widths; make them equal, or give width and depth"
        )
    depth = len(hidden) + 1
    below = depth - (depth - 2) % k
    if below != depth or (depth < 2 and shortcut == "identity"):
        good = " and ".join(str(d) for d in (below, below + k) if 2 <= d <= MAX_DEPTH)
        raise BadInput(f"a depth of {depth} is not 2 + {k} * blocks (model.block_layers = {k}); nearest: {good}")


def _check_remedies(shortcut: Shortcut, init: Init, norm: Norm, branch_scale: BranchScale) -> None:
    """Refuse remedies that make no sense together."""
    if branch_scale in ("rezero", "fixup") and shortcut == "none":
        raise BadInput(
            f"model.branch_scale = {branch_scale!r} needs model.shortcut = 'identity': "
            "in a plain net one layer that starts at zero stops every gradient"
        )
    if branch_scale == "fixup" and norm != "none":
        raise BadInput(
            f"model.branch_scale = 'fixup' replaces normalisation; with it model.norm is 'none', not {norm!r}"
        )
    if branch_scale == "fixup" and init == "lsuv":
        raise BadInput(
            "model.branch_scale = 'fixup' and model.init = 'lsuv' both set the scale of every layer; give one of them"
        )
