"""One batch to its loss and gradients: through autograd, or handwritten where that is faster.

Both fill the gradient that a `Stack` laid out and return the mean loss and the number of right answers of each replica.
`choose_gradients` decides by the model alone. On a GPU either is recorded as a CUDA graph where the model allows it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from netdepth.errors import BadInput
from netdepth.models import Network
from netdepth.training.objectives import CrossEntropy, Distillation, Objective, learns_values
from netdepth.training.stack import Gradients, Stack

__all__ = [
    "MLPPass",
    "Workspace",
    "autograd_gradients",
    "choose_gradients",
    "has_handwritten_pass",
    "mlp_gradients",
    "replayed",
]

WARM_UP = 3
"""Steps of each batch size made kernel by kernel before a CUDA graph is recorded, for libraries to set up."""


def has_handwritten_pass(model: Network, objective: Objective) -> bool:
    """Whether `mlp_gradients` computes this model under this objective: plain cross-entropy. Only such are stacked."""
    plain = isinstance(objective, CrossEntropy) and objective.plain
    return model.relu_chain() is not None and plain and all(p.requires_grad for p in model.parameters())


def choose_gradients(stack: Stack, objective: Objective) -> Gradients:
    """The handwritten pass for a stack, and on a CPU where it applies; autograd for everything else, bf16 among it.

    Raises:
        BadInput: several replicas of a model that only autograd can do.
    """
    on_gpu = stack.flat.device.type == "cuda"
    frozen = stack.tuning is not None and bool(stack.tuning.thaws)  # also later, when all is thawed: a run has one pass
    handwritten = has_handwritten_pass(stack.models[0], objective) and not stack.bf16 and not frozen
    if handwritten and (len(stack) > 1 or not on_gpu):
        gradients = mlp_gradients(stack)
    elif len(stack) > 1:
        what = f"model {type(stack.models[0]).__name__}{' in bf16' if stack.bf16 else ''}"
        raise BadInput(f"{what} has no stacked pass here; train its seeds one at a time")
    else:
        gradients = autograd_gradients(stack, objective)
    same_kernels_each_step = stack.tuning is None and isinstance(objective, CrossEntropy)
    return replayed(gradients) if on_gpu and stack.models[0].replayable and same_kernels_each_step else gradients


def autograd_gradients(stack: Stack, objective: Objective) -> Gradients:
    """Loss and gradients by PyTorch's autograd, for any model and objective; a stack of one.

    In ``bf16`` products and convolutions of the forward pass, and so those of the backward pass, are computed in
    bfloat16 (`torch.autocast`), and activations are kept so. All else stays in float32.
    """
    (model,) = stack.models
    gradient, device = stack.gradient, stack.flat.device.type
    values = learns_values(objective)

    def precision() -> AbstractContextManager[object]:
        return torch.autocast(device, torch.bfloat16) if stack.bf16 else contextlib.nullcontext()

    def compute(inputs: Tensor, labels: Tensor, indices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        gradient.zero_()
        with precision():
            logits = model(stack.images(inputs))
        if stack.bf16:
            logits = logits.float()
        if isinstance(objective, Distillation) and objective.soft_targets is not None and indices is not None:
            loss = objective(logits, labels, objective.soft_targets(inputs, indices))
        else:
            loss = objective(logits, labels)
        if loss.dim():
            raise BadInput(f"the objective returned a tensor {list(loss.shape)}; it must be one number, such as a mean")
        loss.backward()  # type: ignore[no-untyped-call]
        if values:  # no answer is right or wrong
            return loss.detach().view(1), loss.detach().new_zeros(1)
        return loss.detach().view(1), (logits.detach().argmax(1) == labels).sum().view(1)

    return compute


# --- ReLU MLPs, handwritten -------------------------------------------------------------------


class MLPPass:
    """The forward pass of ReLU MLPs, for the ``replicas`` of a stack (all: views, so that training moves them; some:
    copies).

    With h_0 the normalised input and a_i = max(h_(i-1) W_i + b_i, 0), a plain layer passes on h_i = a_i; a residual
    block of k layers passes on h_in + s a_k. The last layer's output are the logits. Weights are ``[S, in, out]``,
    biases ``[S, 1, out]``; without S in a stack of one. What one replica computes depends on no other.
    """

    def __init__(self, stack: Stack, replicas: Sequence[int] | None = None) -> None:
        self.model = stack.models[0]
        chain = self.model.relu_chain()
        assert chain is not None
        self.alone = len(stack) == 1
        self.size = len(stack) if replicas is None else len(replicas)
        self.names = chain.layers
        chosen = slice(None) if replicas is None or self.alone else list(replicas)
        self.weights = [stack.views(f"{name}.weight")[0][chosen] for name in self.names]
        biases = [stack.views(f"{name}.bias")[0][chosen] for name in self.names]
        self.biases = biases if self.alone else [bias.unsqueeze(1) for bias in biases]
        self.last = len(self.names) - 1
        self.scale, k = chain.scale, chain.block_layers
        inside = [k > 0 and 0 < i < self.last for i in range(self.last + 1)]
        self.opens = [inside[i] and (i - 1) % k == 0 for i in range(self.last + 1)]
        """Whether layer i is the first of a block."""
        self.closes = [inside[i] and i % k == 0 for i in range(self.last + 1)]
        """Whether layer i is the last of a block."""

    def forward(self, space: Workspace) -> Tensor:
        """Logits ``[S, B, classes]`` of ``space.x``; what each layer computes is left in ``space``."""
        h = block = space.x
        for i, z in enumerate(space.outputs):
            if self.opens[i]:
                block = h
            if self.alone:
                torch.addmm(self.biases[i], h, self.weights[i], out=z)
            else:  # baddbmm would fill z with the biases first, and read it again
                torch.bmm(h, self.weights[i], out=z).add_(self.biases[i])
            h = z.relu_() if i < self.last else z
            if self.closes[i]:
                h = torch.add(block, z, alpha=self.scale, out=space.passed[i])
        return h


class Workspace:
    """The arrays of one pass at one batch size, ``[S, B, width]`` (``[B, width]`` in a stack of one).

    ``images`` take the pixels: each replica its own batch, or one for all (``shared``). With ``keep`` every layer has
    arrays of its own, as a backward pass needs; else few are used in turn and stay in the cache.
    """

    def __init__(self, net: MLPPass, batch: int, *, keep: bool, shared: bool = False) -> None:
        model = net.model
        self.empty = model.normalize.mean.new_empty
        self.widths = [weight.shape[-1] for weight in net.weights]
        self.shape = (batch,) if net.alone else (net.size, batch)
        self.images = self.empty((batch if shared else net.size * batch, *model.input_shape))
        self.x = self.images.view(batch, -1).expand(*self.shape, -1) if shared else self.images.view(*self.shape, -1)
        if keep:
            self.outputs = [self.empty((*self.shape, width)) for width in self.widths]
            """What each layer computes, after its ReLU."""
            self.passed = [torch.empty_like(z) if c else z for z, c in zip(self.outputs, net.closes, strict=True)]
            """What each layer passes on: at the end of a block, the sum with the skip."""
        else:
            turns = {(width, i): self.empty((*self.shape, width)) for width in self.widths for i in (0, 1, 2)}
            # A residual net's stream, from the first layer on, is the third array.
            self.outputs = [turns[w, i % 2 if i or not any(net.closes) else 2] for i, w in enumerate(self.widths)]
            self.passed = [
                turns[width, 2] if c else z for width, z, c in zip(self.widths, self.outputs, net.closes, strict=True)
            ]

    def take(self, pixels: Tensor, model: Network) -> None:
        """Normalise uint8 ``pixels`` into ``images``."""
        self.images.copy_(pixels).sub_(model.normalize.mean).mul_(model.normalize.scale)


class _TrainingWorkspace(Workspace):
    """A workspace with room for the backward pass."""

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


def mlp_gradients(stack: Stack) -> Gradients:
    """Loss and gradients of ReLU MLPs under cross-entropy, written out, all replicas at once.

    Down from the forward pass of `MLPPass`: ``error`` starts as (softmax - onehot) / B at the logits. Through a layer,
    d_i = error * [a_i > 0] gives dW_i = h_(i-1)^T d_i, db_i = sum_B d_i, and d_i W_i^T is the error below. At the end
    of a block the error is kept as the ``stream`` past the skip, s times it enters the branch, and what comes out of
    the branch is added to the stream. No graph is built, no buffer is allocated per step, and the gradient of the input
    is never formed. Equal to autograd up to rounding.
    """
    net = MLPPass(stack)
    product, add_product = (torch.mm, Tensor.addmm_) if net.alone else (torch.bmm, Tensor.baddbmm_)
    threshold_backward = torch.ops.aten.threshold_backward.grad_input
    weight_grads = [stack.views(f"{name}.weight")[1] for name in net.names]
    bias_grads = [stack.views(f"{name}.bias")[1] for name in net.names]
    weights_t = [weight.mT for weight in net.weights]
    onehot = torch.eye(net.model.num_classes, dtype=stack.flat.dtype, device=stack.flat.device)
    workspaces: dict[int, _TrainingWorkspace] = {}

    @torch.no_grad()
    def compute(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        batch = len(labels) // net.size
        if batch not in workspaces:
            workspaces[batch] = _TrainingWorkspace(net, batch)
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
        return loss.view(net.size), right.view(net.size)

    return compute


# --- CUDA graphs ------------------------------------------------------------------------------


def replayed(compute: Gradients) -> Gradients:
    """``compute`` as one CUDA graph per batch size, recorded once and replayed; the same results.

    A small convolutional network launches several hundred kernels of a few microseconds each per step; launched one by
    one from Python they keep a GPU waiting most of the time. The first `WARM_UP` steps of a size are made as they are,
    so nothing is computed that is not training. What ``compute`` fills must stay where it is (`Stack` keeps gradients
    allocated), it must launch the same kernels each time and read nothing back.
    """
    steps: dict[int, int] = {}
    recordings: dict[int, Gradients] = {}
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # a capture may not meet work that autograd began on the default stream

    def step(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        size = len(labels)
        steps[size] = steps.get(size, 0) + 1
        if steps[size] > WARM_UP:
            if size not in recordings:
                recordings[size] = _recorded(compute, inputs, labels)
            return recordings[size](inputs, labels)
        ordinary = torch.cuda.current_stream()
        beside.wait_stream(ordinary)
        with torch.cuda.stream(beside):
            result = compute(inputs, labels)
        ordinary.wait_stream(beside)
        return result

    return step


def _recorded(compute: Gradients, inputs: Tensor, labels: Tensor) -> Gradients:
    """``compute`` for batches of this size: a graph, and the buffers that it reads and writes."""
    inputs, labels = inputs.clone(), labels.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # records, computes nothing
        loss, right = compute(inputs, labels)

    def replay(new_inputs: Tensor, new_labels: Tensor) -> tuple[Tensor, Tensor]:
        inputs.copy_(new_inputs)
        labels.copy_(new_labels)
        graph.replay()
        return loss.clone(), right.clone()

    return replay
