"""The extreme eigenvalues of the Hessian of the loss, from Hessian-vector products alone (Pearlmutter 1994)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from netdepth.config import derive_seed

__all__ = ["Eigenvalue", "HessianProduct", "largest_eigenvalue", "smallest_eigenvalue"]

CHUNK_PIXELS = 250 * 32 * 32
"""Pixels per pass: the graph of two differentiations is several times as large as the activations."""
TOLERANCE, MAX_PRODUCTS = 1e-2, 200
LANCZOS_BASIS = 20
"""Vectors that are kept, ARPACK's own choice for one eigenvalue."""


@dataclass(frozen=True)
class Eigenvalue:
    """An eigenvalue of a symmetric matrix, and how well it is known.

    ``value`` is v·Hv of a unit vector v, ``residual`` the length of Hv - value·v: an eigenvalue lies no farther from
    ``value`` than that. ``products`` counts products with H; ``converged`` says that the residual fell below the
    tolerance asked for.
    """

    value: float
    residual: float
    products: int
    converged: bool


class HessianProduct:
    """H·v, with H the Hessian of the mean cross-entropy of ``model`` on ``inputs`` in all its parameters.

    In eval mode: batch norm uses its stored statistics, as `netdepth.tools.landscape.surface` does. By double
    backward, a few images at a time, in the precision of the weights; sums over chunks are float64. Where a ReLU
    is at its kink its second derivative counts as zero, as autograd has it.

    Args:
        model: maps ``inputs`` to logits ``[B, C]``; it is copied and not touched.
        inputs: uint8 ``[B, C, H, W]``.
        labels: int64 ``[B]``.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, labels: Tensor) -> None:
        self.model = copy.deepcopy(model).eval()
        self.parameters = [parameter.requires_grad_(True) for parameter in self.model.parameters()]
        self.size = sum(parameter.numel() for parameter in self.parameters)
        self.device = labels.device
        chunk = max(1, CHUNK_PIXELS // math.prod(inputs.shape[2:]))
        self.batches = list(zip(torch.split(inputs, chunk), torch.split(labels, chunk), strict=True))
        self.images = len(labels)

    def __call__(self, vector: Tensor) -> Tensor:
        """``vector`` and the result are float64 ``[size]``, all parameters after one another."""
        pieces = torch.split(vector, [parameter.numel() for parameter in self.parameters])
        shaped = [piece.view_as(p).to(p.dtype) for piece, p in zip(pieces, self.parameters, strict=True)]
        product = torch.zeros_like(vector)
        for inputs, labels in self.batches:
            product += self._of(inputs, labels, shaped)
        return product / self.images

    @torch.enable_grad()
    def _of(self, inputs: Tensor, labels: Tensor, vector: list[Tensor]) -> Tensor:
        """The same of one chunk's summed loss."""
        loss = F.cross_entropy(self.model(inputs), labels, reduction="sum")
        gradients = torch.autograd.grad(loss, self.parameters, create_graph=True, materialize_grads=True)
        along = sum(((g * v).sum() for g, v in zip(gradients, vector, strict=True)), torch.zeros_like(loss))
        if not along.requires_grad:  # a network that is linear in nothing the loss depends on
            return torch.zeros(self.size, dtype=torch.float64, device=self.device)
        second = torch.autograd.grad(along, self.parameters, materialize_grads=True)
        return torch.cat([part.reshape(-1).double() for part in second])


Product = Callable[[Tensor], Tensor]


def _start(size: int, seed: int) -> Tensor:
    """A random unit vector."""
    vector: Tensor = torch.randn(
        size, dtype=torch.float64, generator=Generator().manual_seed(derive_seed(seed, "curvature"))
    )
    return torch.nn.functional.normalize(vector, dim=0)


def largest_eigenvalue(
    product: Product,
    size: int,
    *,
    device: torch.device | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    max_products: int = MAX_PRODUCTS,
) -> Iterator[Eigenvalue]:
    """Power iteration: what is known of the largest eigenvalue after every product; the last one is the answer.

    It ends when the residual is at most ``tolerance`` times the eigenvalue, or after ``max_products``. Power iteration
    finds the eigenvalue of largest magnitude. Should that be a negative one, the iteration goes on with H - value·I,
    whose dominant eigenvalue belongs to the largest of H.

    Args:
        product: v to H·v, float64 ``[size]``, H symmetric.
        size: number of rows of H.
        device: where vectors lie; the CPU if None.
        seed: of the random vector it starts from.
    """
    start = _start(size, seed).to(device or "cpu")
    vector, shift = start, 0.0
    for count in range(1, max_products + 1):
        image = product(vector)
        value = float(vector @ image)
        residual = float((image - value * vector).norm())
        converged = residual <= tolerance * abs(value)
        turned = converged and value < 0 and shift == 0
        yield Eigenvalue(value, residual, count, converged and not turned)
        if (converged and not turned) or not math.isfinite(value):
            return
        if turned:  # from the start again: what is left beside this eigenvector is mostly the second most negative
            vector, shift = start, value
            continue
        vector = image - shift * vector
        length = vector.norm()
        if length == 0:  # H is zero: no direction is better than another
            return
        vector = vector / length


def smallest_eigenvalue(
    product: Product,
    size: int,
    *,
    device: torch.device | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    max_products: int = MAX_PRODUCTS,
    counted: Callable[[int], None] = lambda count: None,
) -> Eigenvalue:
    """The smallest (most negative) eigenvalue by the restarted Lanczos method (ARPACK through SciPy).

    Power iteration on H shifted by its largest eigenvalue would crawl: the smallest one is a small part of the
    shifted spectrum. ``counted`` is called with the number of products after each. Where ``max_products``, to within
    a restart, do not suffice there is no value: NaN, and ``converged`` is false.

    Args: as of `largest_eigenvalue`.
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    products = 0

    def multiply(vector: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        counted(products)
        image: np.ndarray = product(torch.from_numpy(vector.reshape(-1)).to(device or "cpu")).cpu().numpy()
        return image

    start = _start(size, seed)
    basis = min(size, LANCZOS_BASIS)
    operator = LinearOperator((size, size), matvec=multiply, dtype=np.float64)
    restarts = max(1, max_products // basis)
    try:
        values, vectors = eigsh(operator, 1, which="SA", v0=start.numpy(), ncv=basis, maxiter=restarts, tol=tolerance)
    except ArpackError:  # not converged; or H is zero where it started
        return Eigenvalue(math.nan, math.nan, products, False)
    value, vector = float(values[0]), vectors[:, 0]
    return Eigenvalue(value, float(np.linalg.norm(multiply(vector) - value * vector)), products, True)
