"""One batch to its loss and gradients: through autograd, or by hand where that is faster.

Both fill the gradient that a `Stack` laid out and return the mean loss and the number of right
answers of each lane. `choose_gradients` decides by the model alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from netdepth.engine.objectives import CrossEntropy, Objective
from netdepth.engine.stack import Stack
from netdepth.errors import BadInput
from netdepth.models import Network
from netdepth.models.mlp import MLP

__all__ = ["Gradients", "autograd_gradients", "by_hand", "choose_gradients", "mlp_gradients"]

Gradients = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(inputs uint8 ``[S·B, C, H, W]``, labels ``[S·B]``, lane after lane) to (losses ``[S]``, numbers right ``[S]``)."""


def by_hand(model: Network, objective: Objective) -> bool:
    """Whether `mlp_gradients` computes this model under this objective: a ReLU MLP, plain or residual, without
    normalisation, dropout or learned scales, under plain cross-entropy. Only such models are stacked."""
    return (
        type(model) is MLP
        and isinstance(model.activation, nn.ReLU)
        and model.dropout.p == 0
        and model.norm == "none"
        and not model.pre_activation
        and (model.shortcut == "none" or model.branch_scale in ("1", "blocks^-1/2"))
        and isinstance(objective, CrossEntropy)
        and objective.label_smoothing == 0
        and all(p.requires_grad for p in model.parameters())
    )


def choose_gradients(stack: Stack, objective: Objective) -> Gradients:
    """The hand-written pass for a stack, and on a CPU where it applies; autograd for everything else.

    Raises:
        BadInput: several lanes of a model that only autograd can do.
    """
    known = by_hand(stack.models[0], objective)
    if known and (len(stack) > 1 or stack.flat.device.type == "cpu"):
        return mlp_gradients(stack)
    if len(stack) > 1:
        raise BadInput(f"model {type(stack.models[0]).__name__} has no stacked pass here; make its seeds alone")
    return autograd_gradients(stack, objective)


def autograd_gradients(stack: Stack, objective: Objective) -> Gradients:
    """Loss and gradients by PyTorch's autograd, for any model and objective; a stack of one."""
    (model,) = stack.models
    gradient = stack.gradient

    def compute(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        gradient.zero_()
        logits = model(inputs)
        loss = objective(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach().view(1), (logits.detach().argmax(1) == labels).sum().view(1)

    return compute


def mlp_gradients(stack: Stack) -> Gradients:
    """Loss and gradients of ReLU MLPs under cross-entropy, written out, all lanes at once.

    With h_0 the normalised input and a_i = max(h_(i-1) W_i + b_i, 0), a plain layer passes on
    h_i = a_i; a residual block of k layers passes on h_in + s a_k. ``error`` starts as
    (softmax - onehot) / B at the logits. Through a layer, d_i = error * [a_i > 0] gives
    dW_i = h_(i-1)^T d_i, db_i = sum_B d_i, and d_i W_i^T is the error below. At the end of a block
    the error is kept as the ``stream`` past the skip, s times it enters the branch, and what comes
    out of the branch is added to the stream. No graph is built, no buffer is allocated per step,
    and the gradient of the input is never formed. Equal to autograd up to rounding.
    """
    model = stack.models[0]
    assert isinstance(model, MLP)
    lanes, alone = len(stack), len(stack) == 1
    affine, product = (torch.addmm, torch.mm) if alone else (torch.baddbmm, torch.bmm)
    add_product = Tensor.addmm_ if alone else Tensor.baddbmm_
    threshold_backward = torch.ops.aten.threshold_backward.grad_input
    names = [*(f"hidden.{i}" for i in range(len(model.hidden))), "head"]
    weights, weight_grads = zip(*(stack.views(f"{name}.weight") for name in names), strict=True)
    biases, bias_grads = zip(*(stack.views(f"{name}.bias") for name in names), strict=True)
    biases = biases if alone else tuple(bias.unsqueeze(1) for bias in biases)
    weights_t = [weight.mT for weight in weights]
    last = len(names) - 1
    residual, k, s = model.shortcut == "identity", model.block_layers, model.branch_factor
    opens = [residual and 0 < i < last and (i - 1) % k == 0 for i in range(last + 1)]
    closes = [residual and 0 < i < last and i % k == 0 for i in range(last + 1)]
    mean, scale = model.normalize.mean, model.normalize.scale
    onehot = torch.eye(model.num_classes, dtype=mean.dtype, device=mean.device)
    workspaces: dict[int, _Workspace] = {}

    @torch.no_grad()
    def compute(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        batch = len(labels) // lanes
        if batch not in workspaces:
            workspaces[batch] = _Workspace(model, lanes, batch, closes)
        space = workspaces[batch]
        space.images.copy_(inputs).sub_(mean).mul_(scale)
        h = block = space.x
        for i, z in enumerate(space.outputs):
            if opens[i]:
                block = h
            affine(biases[i], h, weights[i], out=z)
            h = z.relu_() if i < last else z
            if closes[i]:
                h = torch.add(block, z, alpha=s, out=space.passed[i])
        right = (h.argmax(-1) == labels.view(h.shape[:-1])).sum(-1)
        log_p, target = torch.log_softmax(h, -1), onehot.index_select(0, labels).view_as(h)
        loss = (log_p * target).sum((-2, -1)).div_(-batch)
        error = stream = log_p.exp_().sub_(target).div_(batch)
        for i in range(last, -1, -1):
            if closes[i]:
                stream, error = error, threshold_backward(error, space.outputs[i], 0, grad_input=space.branch)
                if s != 1:
                    error.mul_(s)
            elif i < last:
                threshold_backward(error, space.outputs[i], 0, grad_input=error)
            product(space.below_t[i], error, out=weight_grads[i])
            torch.sum(error, -2, out=bias_grads[i])
            if opens[i]:
                error = add_product(stream, error, weights_t[i])
            elif i:
                error = product(error, weights_t[i], out=space.errors[i - 1])
        return loss.view(lanes), right.view(lanes)

    return compute


class _Workspace:
    """Every array of one training step at one batch size, ``[S, B, width]`` (``[B, width]`` alone)."""

    def __init__(self, model: MLP, lanes: int, batch: int, closes: Sequence[bool]) -> None:
        empty = model.normalize.mean.new_empty
        widths: list[int] = [layer.out_features for layer in [*model.hidden, model.head]]
        shape = (batch,) if lanes == 1 else (lanes, batch)
        self.images = empty((lanes * batch, *model.input_shape))
        self.x = self.images.view(*shape, -1)
        self.outputs = [empty((*shape, width)) for width in widths]
        """What each layer computes, after its ReLU."""
        self.passed = [torch.empty_like(z) if c else z for z, c in zip(self.outputs, closes, strict=True)]
        """What each layer passes on: at the end of a block, the sum with the skip."""
        self.below_t = [h.mT for h in (self.x, *self.passed[:-1])]
        # Two arrays of each width take the errors in turn and stay in the cache; the topmost hidden
        # layer has its own, where the stream of a residual net is accumulated.
        turns = {(width, i): empty((*shape, width)) for width in widths for i in (0, 1)}
        self.errors = [turns[width, i % 2] for i, width in enumerate(widths)]
        if len(widths) > 1:
            self.errors[-2] = empty((*shape, widths[-2]))
        self.branch = torch.empty_like(self.errors[-2 if len(widths) > 1 else -1])
