"""One batch to its loss and gradients: through autograd, or by hand where that is faster.

Both fill the ``.grad`` buffers that `flatten` laid out and return the mean loss and the number
of right answers as scalars on the device. `choose_gradients` decides by the model alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from netdepth.engine.objectives import CrossEntropy, Objective
from netdepth.models import Network
from netdepth.models.mlp import MLP

__all__ = ["Gradients", "autograd_gradients", "choose_gradients", "mlp_gradients"]

Gradients = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(inputs uint8 ``[B, C, H, W]``, labels ``[B]``) to (loss, number right); fills ``.grad``."""


def choose_gradients(model: Network, flat: nn.Parameter, objective: Objective) -> Gradients:
    """The hand-written pass for a plain ReLU MLP on a CPU, autograd for everything else."""
    by_hand = (
        type(model) is MLP
        and flat.device.type == "cpu"
        and isinstance(model.activation, nn.ReLU)
        and model.dropout.p == 0
        and isinstance(objective, CrossEntropy)
        and objective.label_smoothing == 0
        and all(p.requires_grad for p in model.parameters())
    )
    return mlp_gradients(model) if by_hand and type(model) is MLP else autograd_gradients(model, flat, objective)


def autograd_gradients(model: Network, flat: nn.Parameter, objective: Objective) -> Gradients:
    """Loss and gradients by PyTorch's autograd, for any model and objective."""
    gradient = flat.grad
    assert gradient is not None

    def compute(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        gradient.zero_()
        logits = model(inputs)
        loss = objective(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), (logits.detach().argmax(1) == labels).sum()

    return compute


def mlp_gradients(model: MLP) -> Gradients:
    """Loss and gradients of a ReLU MLP under cross-entropy, written out.

    With h_0 the normalised input and z_i = h_(i-1) W_i^T + b_i, h_i = max(z_i, 0), the error
    d_L = (softmax(z_L) - onehot) / B is carried down: dW_i = d_i^T h_(i-1), db_i = sum_B d_i,
    d_(i-1) = (d_i W_i) * [h_(i-1) > 0]. No graph is built, no buffer is allocated per step, and
    the gradient of the input is never formed. Equal to autograd up to rounding.
    """
    layers = [*model.hidden, model.head]
    last = len(layers) - 1
    weights = [layer.weight.detach() for layer in layers]
    weights_t = [weight.t() for weight in weights]
    biases = [layer.bias.detach() for layer in layers]
    weight_grads = [layer.weight.grad for layer in layers]
    bias_grads = [layer.bias.grad for layer in layers]
    mean, scale = model.normalize.mean, model.normalize.scale
    onehot = torch.eye(model.num_classes, dtype=mean.dtype)
    buffers: dict[int, tuple[Tensor, list[Tensor], list[Tensor]]] = {}

    def allocate(batch: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        images = torch.empty(batch, *model.input_shape, dtype=mean.dtype)
        outputs = [torch.empty(batch, w.shape[0], dtype=w.dtype) for w in weights]
        errors = [torch.empty_like(h) for h in outputs]
        return images, outputs, errors

    @torch.no_grad()
    def compute(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        batch = len(labels)
        if batch not in buffers:
            buffers[batch] = allocate(batch)
        images, outputs, errors = buffers[batch]
        x = images.copy_(inputs).sub_(mean).mul_(scale).view(batch, -1)
        h = x
        for i, z in enumerate(outputs):
            torch.addmm(biases[i], h, weights_t[i], out=z)
            h = z.relu_() if i < last else z
        right = (h.argmax(1) == labels).sum()
        log_p, target = torch.log_softmax(h, 1), onehot.index_select(0, labels)
        loss = torch.dot(log_p.view(-1), target.view(-1)).div_(-batch)
        error = log_p.exp_().sub_(target).div_(batch)
        for i in range(last, -1, -1):
            below = outputs[i - 1] if i else x
            torch.mm(error.t(), below, out=weight_grads[i])
            torch.sum(error, 0, out=bias_grads[i])
            if i:
                torch.mm(error, weights[i], out=errors[i - 1])
                error = torch.ops.aten.threshold_backward.grad_input(errors[i - 1], below, 0, grad_input=errors[i - 1])
        return loss, right

    return compute
