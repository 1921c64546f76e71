"""One batch to its loss and gradients: through autograd, or by hand where that is faster.

Both fill the gradient that a `Stack` laid out and return the mean loss and the number of right
answers of each lane. `choose_gradients` decides by the model alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from netdepth.errors import BadInput
from netdepth.models import Network
from netdepth.models.mlp import MLP
from netdepth.training.mlp_pass import MLPPass, Workspace, written_out
from netdepth.training.objectives import CrossEntropy, Distillation, Objective
from netdepth.training.stack import Stack

__all__ = ["Gradients", "autograd_gradients", "by_hand", "choose_gradients", "mlp_gradients"]

Gradients = Callable[..., tuple[Tensor, Tensor]]
"""(inputs uint8 ``[S·B, C, H, W]``, labels ``[S·B]``, lane after lane) to (losses ``[S]``, numbers right ``[S]``); what
distils is also given the images' indices ``[B]``."""


def by_hand(model: Network, objective: Objective) -> bool:
    """Whether `mlp_gradients` computes this model under this objective: one that `written_out` knows, without
    dropout, under plain cross-entropy. Only such models are stacked."""
    return (
        written_out(model)
        and isinstance(model, MLP)
        and model.dropout.p == 0
        and isinstance(objective, CrossEntropy)
        and objective.label_smoothing == 0
    )


def choose_gradients(stack: Stack, objective: Objective) -> Gradients:
    """The hand-written pass for a stack, and on a CPU where it applies; autograd for everything else, bf16 among it.

    On a GPU either goes through a CUDA graph, for models that allow it.

    Raises:
        BadInput: several lanes of a model that only autograd can do.
    """
    gradients = _chosen(stack, objective)
    settled = stack.tuning is None and isinstance(objective, CrossEntropy)  # the same kernels in every step
    if stack.flat.device.type == "cuda" and stack.models[0].replayable and settled:
        from netdepth.training.graphs import replayed

        return replayed(gradients)
    return gradients


def _chosen(stack: Stack, objective: Objective) -> Gradients:
    frozen = stack.tuning is not None and bool(stack.tuning.thaws)  # also later, when all is thawed: a run has one pass
    known = by_hand(stack.models[0], objective) and not stack.bf16 and not frozen
    if known and (len(stack) > 1 or stack.flat.device.type == "cpu"):
        return mlp_gradients(stack)
    if len(stack) > 1:
        what = f"model {type(stack.models[0]).__name__}{' in bf16' if stack.bf16 else ''}"
        raise BadInput(f"{what} has no stacked pass here; make its seeds alone")
    return autograd_gradients(stack, objective)


def autograd_gradients(stack: Stack, objective: Objective) -> Gradients:
    """Loss and gradients by PyTorch's autograd, for any model and objective; a stack of one.

    In ``bf16`` products and convolutions of the forward pass, and so those of the way back, are computed
    in bfloat16 (`torch.autocast`), and activations are kept so. Weights, their gradients, the statistics
    of batch norm and the loss stay in float32.
    """
    (model,) = stack.models
    gradient, device = stack.gradient, stack.flat.device.type

    def lowered() -> AbstractContextManager[object]:
        return torch.autocast(device, torch.bfloat16) if stack.bf16 else contextlib.nullcontext()

    def compute(inputs: Tensor, labels: Tensor, indices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        gradient.zero_()
        with lowered():
            logits = model(stack.images(inputs))
        if stack.bf16:
            logits = logits.float()
        if isinstance(objective, Distillation) and objective.soft_targets is not None and indices is not None:
            loss = objective(logits, labels, objective.soft_targets(inputs, indices))
        else:
            loss = objective(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach().view(1), (logits.detach().argmax(1) == labels).sum().view(1)

    return compute


def mlp_gradients(stack: Stack) -> Gradients:
    """Loss and gradients of ReLU MLPs under cross-entropy, written out, all lanes at once.

    Down from the forward pass of `MLPPass`: ``error`` starts as (softmax - onehot) / B at the logits.
    Through a layer, d_i = error * [a_i > 0] gives dW_i = h_(i-1)^T d_i, db_i = sum_B d_i, and d_i W_i^T
    is the error below. At the end of a block the error is kept as the ``stream`` past the skip, s
    times it enters the branch, and what comes out of the branch is added to the stream. No graph
    is built, no buffer is allocated per step, and the gradient of the input is never formed.
    Equal to autograd up to rounding.
    """
    net = MLPPass(stack)
    product, add_product = (torch.mm, Tensor.addmm_) if net.alone else (torch.bmm, Tensor.baddbmm_)
    threshold_backward = torch.ops.aten.threshold_backward.grad_input
    weight_grads = [stack.views(f"{name}.weight")[1] for name in net.names]
    bias_grads = [stack.views(f"{name}.bias")[1] for name in net.names]
    weights_t = [weight.mT for weight in net.weights]
    onehot = torch.eye(net.model.num_classes, dtype=stack.flat.dtype, device=stack.flat.device)
    workspaces: dict[int, _Training] = {}

    @torch.no_grad()
    def compute(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        batch = len(labels) // net.lanes
        if batch not in workspaces:
            workspaces[batch] = _Training(net, batch)
        space = workspaces[batch]
        space.take(inputs, net.model)
        logits = net.forward(space)
        right = (logits.argmax(-1) == labels.view(logits.shape[:-1])).sum(-1)
        log_p, target = torch.log_softmax(logits, -1), onehot.index_select(0, labels).view_as(logits)
        loss = (log_p * target).sum((-2, -1)).div_(-batch)
        error = stream = log_p.exp_().sub_(target).div_(batch)
        for i in range(net.last, -1, -1):
            if net.closes[i]:
                stream, error = error, threshold_backward(error, space.outputs[i], 0, grad_input=space.branch)
                if net.scale != 1:
                    error.mul_(net.scale)
            elif i < net.last:
                threshold_backward(error, space.outputs[i], 0, grad_input=error)
            product(space.below_t[i], error, out=weight_grads[i])
            torch.sum(error, -2, out=bias_grads[i])
            if net.opens[i]:
                error = add_product(stream, error, weights_t[i])
            elif i:
                error = product(error, weights_t[i], out=space.errors[i - 1])
        return loss.view(net.lanes), right.view(net.lanes)

    return compute


class _Training(Workspace):
    """A workspace with room for the way back."""

    def __init__(self, net: MLPPass, batch: int) -> None:
        super().__init__(net, batch, keep=True)
        self.below_t = [h.mT for h in (self.x, *self.passed[:-1])]
        # Two arrays of each width take the errors in turn and stay in the cache; the topmost hidden
        # layer has its own, where the stream of a residual net is accumulated.
        turns = {(width, i): self.empty((*self.shape, width)) for width in self.widths for i in (0, 1)}
        self.errors = [turns[width, i % 2] for i, width in enumerate(self.widths)]
        if len(self.widths) > 1:
            self.errors[-2] = self.empty((*self.shape, self.widths[-2]))
        self.branch = torch.empty_like(self.errors[-2 if len(self.widths) > 1 else -1])
