"""The loss around a network's weights: a two-dimensional slice, and the extreme eigenvalues of the Hessian.

**Slice** (Li et al. 2018, "Visualizing the Loss Landscape"): loss(a, b) = L(w + a·d1 + b·d2) on a fixed set of images.
The directions are the paper's (§4): Gaussian, and every filter of a direction, the weights of one output channel or
unit, as long as the same filter of the weights. Biases and the scales and shifts of normalisation layers are not moved,
as in the authors' code (``biasbn``).

**Curvature**: Hessian-vector products alone (Pearlmutter 1994).

Batch norm uses its stored statistics throughout: the network is in eval mode.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from netdepth.config import Json, derive_seed
from netdepth.errors import BadInput
from netdepth.text import plain

__all__ = [
    "MAX_PRODUCTS", "TOLERANCE", "Curvature", "Eigenvalue", "HessianProduct", "Setting", "Slice", "Summary",
    "coordinates", "describe_surface", "filter_directions", "largest_eigenvalue", "slice_losses", "smallest_eigenvalue",
]  # fmt: skip

CHUNK_PIXELS = 250 * 32 * 32
"""Pixels per pass: the graph of two differentiations is several times as large as the activations."""
FLAT, SMALL = 1e-2, 1e-3
"""A point is curved down if its smaller curvature is negative by more than this share of the larger one's size,
and by more than this many nats per unit squared: less is the rounding of a plain."""
TOLERANCE, MAX_PRODUCTS = 1e-2, 200
LANCZOS_BASIS = 20
"""Vectors that are kept, ARPACK's own choice for one eigenvalue."""

Directions = Sequence[dict[str, Tensor]]
Product = Callable[[Tensor], Tensor]


# --- what is known of one run ---


@dataclass(frozen=True)
class Summary:
    """Counts on a whole grid of losses.

    ``centre``, ``lowest``, ``highest``: losses, of the finite points. ``below_twice_centre``, ``below_guessing``: the
    share of all points whose loss is below twice the centre's, and below the loss of guessing. ``curved_down``: the
    share of the points with eight finite neighbours at which the slice's 2x2 Hessian (central differences) has an
    eigenvalue that is negative, by more than a hundredth of the larger one's size, in the spirit of Li et al. 2018,
    §6, whose ratio is of the whole Hessian's eigenvalues; None if no point can be judged. ``not_finite``: points with
    NaN or infinity.
    """

    centre: float
    lowest: float
    highest: float
    below_twice_centre: float
    below_guessing: float
    curved_down: float | None
    not_finite: int


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


@dataclass(frozen=True)
class Curvature:
    """The extreme eigenvalues of a Hessian of ``size`` rows; ``smallest`` is None if the loss is not finite."""

    tolerance: float
    max_products: int
    size: int
    largest: Eigenvalue
    smallest: Eigenvalue | None


@dataclass(frozen=True)
class Setting:
    """What decides the numbers of a slice: run, weights, data, directions, grid."""

    run: str
    weights: str
    weights_sha256: str
    dataset: str
    data_digest: str
    split_digest: str
    part: str
    images: int
    seed: int
    grid: int
    radius: float
    batch_norm: str


@dataclass(frozen=True)
class Slice(Setting):
    """The losses around the weights of one run, as ``landscapes/*.json`` holds them.

    ``loss`` has a row per coordinate of the second direction. While the slice is not ``complete``, rows are missing and
    the rest is None. ``guessing`` is ln C.
    """

    coordinates: list[float]
    complete: bool
    loss: list[list[float]]
    summary: Summary | None = None
    guessing: float | None = None
    curvature: Curvature | None = None

    def __post_init__(self) -> None:
        width = len(self.coordinates)
        whole, rest = divmod(sum(map(len, self.loss)), width)
        if [len(row) for row in self.loss] != [width] * whole + [rest] * (rest > 0):
            raise ValueError("a row of losses is too short or too long")

    def as_json(self) -> Mapping[str, Json]:
        """The content of the file; NaN and infinities are in their places."""
        document = dataclasses.asdict(self)
        return document if self.complete else {k: v for k, v in document.items() if v is not None}


# --- a slice ---


def coordinates(points: int, radius: float) -> list[float]:
    """``points`` values from -``radius`` to ``radius``; an odd number, so that 0 is the middle one, exactly.

    Raises:
        BadInput: an even number or fewer than 3, a radius that is not above 0.
    """
    if points < 3 or points % 2 == 0:
        raise BadInput(f"a grid of {points} points per side has no centre; it takes an odd number, 3 or more")
    if not (math.isfinite(radius) and radius > 0):
        raise BadInput(f"a radius of {plain(radius)} is out of range; it takes a number above 0")
    half = points // 2
    return [radius * i / half for i in range(-half, half + 1)]


def filter_directions(model: nn.Module, seed: int, count: int = 2) -> list[dict[str, Tensor]]:
    """``count`` random directions in the weights of ``model``, each filter as long as that of the weights.

    A filter is the part of a parameter under one index of its first axis: ``[in]`` of a linear layer's ``[out, in]``,
    ``[in, h, w]`` of a convolution's. Parameters of fewer than two axes are in no direction: they do not move. Two
    networks with the same parameters, such as a residual one and its plain twin, get the same random numbers.

    Returns:
        By name of the parameter, of its shape, type and device.
    """
    directions = []
    for index in range(count):
        generator = Generator().manual_seed(derive_seed(seed, "landscape", index))
        direction = {}
        for name, weight in model.named_parameters():
            if weight.dim() < 2:
                continue
            drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            lengths = _filter_lengths(weight.detach().double().cpu())
            direction[name] = (drawn * (lengths / _filter_lengths(drawn))).to(weight)
        directions.append(direction)
    return directions


def _filter_lengths(weight: Tensor) -> Tensor:
    """Euclidean length of every filter, shaped to be multiplied with ``weight``."""
    lengths: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return lengths.view(-1, *[1] * (weight.dim() - 1))


def slice_losses(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    directions: Directions,
    steps: Sequence[float],
    begin: int = 0,
) -> Iterator[float]:
    """The mean cross-entropy (nats) at every point of the slice, row by row: ``steps[k // n]`` along the second
    direction and ``steps[k % n]`` along the first, for k from ``begin`` to n².

    ``model`` is copied and not touched. A value may be NaN or infinite.

    Args:
        model: maps ``inputs`` to logits ``[B, C]``.
        inputs: uint8 ``[B, C, H, W]``.
        labels: int64 ``[B]``.
        directions: two, from `filter_directions`.
        steps: the n coordinates of either axis.
        begin: the number of points that are already known.
    """
    model = copy.deepcopy(model).eval()
    moved: list[Tensor] = [parameter for name, parameter in model.named_parameters() if name in directions[0]]
    start = [parameter.detach().clone() for parameter in moved]
    first, second = ([direction[name] for name in directions[0]] for direction in directions)
    for k in range(begin, len(steps) ** 2):
        b, a = (steps[i] for i in divmod(k, len(steps)))
        with torch.no_grad():  # closed before the yield, so the caller keeps its own mode
            torch._foreach_copy_(moved, start)
            torch._foreach_add_(moved, first, alpha=a)
            torch._foreach_add_(moved, second, alpha=b)
        yield mean_loss(model, inputs, labels)


@torch.inference_mode()
def mean_loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy (nats) of ``model``, in the mode it is in, summed in float64."""
    size = max(1, CHUNK_PIXELS // math.prod(inputs.shape[2:]))
    total = torch.zeros((), dtype=torch.float64, device=labels.device)
    for pixels, truth in zip(torch.split(inputs, size), torch.split(labels, size), strict=True):
        total += F.cross_entropy(model(pixels), truth, reduction="none").double().sum()
    return float(total) / len(labels)


def describe_surface(losses: Sequence[Sequence[float]], step: float, guessing: float) -> Summary:
    """Counts on ``losses`` ``[n, n]`` (rows along the second direction), whose points lie ``step`` apart.

    ``guessing`` is the loss of giving every class the same probability, ln C.
    """
    z = np.asarray(losses, dtype=np.float64)
    finite = z[np.isfinite(z)]
    centre = float(z[len(z) // 2, len(z) // 2])
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinities compare and subtract as they are
        judged, down = _curved_down(z, step)
        return Summary(
            centre=centre,
            lowest=float(finite.min()) if len(finite) else math.nan,
            highest=float(finite.max()) if len(finite) else math.nan,
            below_twice_centre=float((z < 2 * centre).mean()),
            below_guessing=float((z < guessing).mean()),
            curved_down=float(down.sum() / judged.sum()) if judged.any() else None,
            not_finite=int(z.size - len(finite)),
        )


def _curved_down(z: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Which inner points of ``z`` have a finite Hessian, and which of those an eigenvalue below zero."""
    middle = z[1:-1, 1:-1]
    xx = (z[1:-1, 2:] - 2 * middle + z[1:-1, :-2]) / step**2
    yy = (z[2:, 1:-1] - 2 * middle + z[:-2, 1:-1]) / step**2
    xy = (z[2:, 2:] - z[2:, :-2] - z[:-2, 2:] + z[:-2, :-2]) / (4 * step**2)
    mean, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    low, high = mean - half, mean + half
    judged = np.isfinite(low) & np.isfinite(high)
    return judged, judged & (low < -np.maximum(FLAT * np.abs(high), SMALL))


# --- curvature ---


class HessianProduct:
    """H·v, with H the Hessian of the mean cross-entropy of ``model`` on ``inputs`` in all its parameters.

    By double backward, a few images at a time, in the precision of the weights; sums over chunks are float64. The
    second derivative of a ReLU at its kink counts as zero, as in autograd.

    Args:
        model: maps ``inputs`` to logits ``[B, C]``; it is copied and not changed.
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


def _start(size: int, seed: int) -> Tensor:
    """A random unit vector."""
    vector: Tensor = torch.randn(
        size, dtype=torch.float64, generator=Generator().manual_seed(derive_seed(seed, "curvature"))
    )
    return F.normalize(vector, dim=0)


def largest_eigenvalue(
    product: Product,
    size: int,
    *,
    device: torch.device | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    max_products: int = MAX_PRODUCTS,
) -> Iterator[Eigenvalue]:
    """Power iteration: the largest eigenvalue as known after every product; the last one is the result.

    It ends when the residual is at most ``tolerance`` times the eigenvalue, or after ``max_products``. Power iteration
    finds the eigenvalue of largest magnitude. If that is negative, the iteration continues with H - value·I,
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
        if turned:  # from the start again: the rest beside this eigenvector is mostly the second most negative one
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
    shifted spectrum. ``counted`` is called with the number of products after each. If ``max_products``, to within
    a restart, are not enough, the value is NaN and ``converged`` is false.

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
