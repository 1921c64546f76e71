"""Data parallel training of one run under torchrun: who there is, and what they say to one another.

Rank 0 leads (`engine.lead`). It makes an ordinary run: it alone holds the optimizer, evaluates, decides, writes and
shows. The others follow (`engine.follow`) and compute gradients. At every step rank 0 sends the step's number and the
weights, every rank takes its share of the global batch, and the gradients, weighted by how many images they are of, are
summed at rank 0. So there is nothing to agree on, and no rank can drift from another.

What happens at every step goes through collectives: numbers of steps over gloo, weights and gradients over gloo or,
on GPUs, NCCL. A process that ends closes its connections, and whoever waits for it knows at once. What happens once
goes through the key-value store of torchrun, which outlives every rank:

    begin        what rank 0 is about to train, and how         ready/<r>  r has its data
    asked        a signal that a follower was sent              complaint  why a follower cannot go on
    farewell     rank 0 leaves before the end: its exit code    bye/<r>    r has read that, so it is alive
"""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from netdepth.errors import BadInput, RankLost

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from netdepth.data.batches import Batches
    from netdepth.training.gradients import Gradients
    from netdepth.training.stack import Stack

__all__ = ["ALONE", "Rank", "Team", "only_alone", "rank", "world_size"]

PATIENCE = timedelta(minutes=5)
"""How much longer one rank may need for a step than another. For ranks that are silent, as after a power cut: one that
ends is noticed at once."""
BEGIN, END = -1, -2
"""What is sent in place of a step's number."""


def world_size() -> int:
    """How many processes make one run: torchrun's WORLD_SIZE; 1 where its variables are not all there."""
    given = all(os.environ.get(name) for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"))
    return _variable("WORLD_SIZE", 1) if given else 1


def rank() -> int:
    """Which of them this one is."""
    return _variable("RANK", 0) if world_size() > 1 else 0


def _variable(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else default


def only_alone(what: str) -> None:
    """Raise BadInput where torchrun started this process beside others: ``what`` is nothing they could share."""
    if world_size() > 1:
        raise BadInput(
            f"{what}: not under torchrun (WORLD_SIZE = {world_size()}), which divides the batches of one run of "
            f"netdepth train; start it without torchrun"
        )


class Team:
    """The processes that make a run together, seen from one of them. As it stands: this one alone."""

    rank = 0
    world = 1
    on_this_machine = 1

    def device(self, name: str) -> str:
        """What ``--device`` means for this process."""
        return name

    def backend(self, device: torch.device) -> str | None:
        """The library that moves weights and gradients; None where there is nobody to move them to."""
        return None

    def begin(self, given: Mapping[str, Any], device: torch.device) -> None:
        """Tell the followers what is about to be trained, and wait until they have their data.

        Raises:
            RankLost: one cannot.
        """

    def share(self, gradients: Gradients, stack: Stack, batches: Batches, step: int) -> Gradients:
        """``gradients`` of this process's images as a function that returns those of the whole batch.

        Its first call is ``step``, each further one the step after. It raises RankLost where a follower is gone, and
        Interrupted where one was sent a signal.
        """
        return gradients

    def release(self) -> None:
        """Let go of a step that is under way: where another process is gone, a card would wait for it for ever."""


ALONE = Team()


class Rank(Team, abc.ABC):
    """One of several processes. ``store`` is what torchrun keeps for all of them."""

    def __init__(self, rank: int, world: int, store: Any = None) -> None:
        self.rank, self.world, self.store = rank, world, store
        self.local_rank = _variable("LOCAL_RANK", rank)
        self.on_this_machine = _variable("LOCAL_WORLD_SIZE", world)
        self.broken = ""
        """What broke, where something did."""
        self._sums: Any = None

    def device(self, name: str) -> str:
        """Every rank takes the card of its number on its machine."""
        import torch

        if name == "cpu":
            return name
        if name not in ("auto", "cuda"):
            raise BadInput(f"--device {name} under torchrun: every rank takes the card of its number; use cuda or cpu")
        return f"cuda:{self.local_rank}" if torch.cuda.is_available() else name

    def backend(self, device: torch.device) -> str | None:
        return "nccl" if device.type == "cuda" else "gloo"

    def connect(self, device: torch.device) -> None:
        """Open what weights and gradients go through; all ranks do it at the same time."""
        import torch
        from torch import distributed

        if device.type == "cuda":
            torch.cuda.set_device(device)
        with self.talking():
            self._sums = distributed.new_group(backend=self.backend(device), timeout=PATIENCE)

    def number(self, number: int = 0) -> int:
        """Rank 0's ``number``, at every rank: of a step, BEGIN or END. Followers wait for it."""
        import torch
        from torch import distributed

        sent = torch.tensor(number)
        with self.talking():
            distributed.broadcast(sent, 0)
        return int(sent)

    def exchange(
        self, gradients: Gradients, stack: Stack, inputs: Tensor, labels: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        """One step: rank 0's weights, the gradient of this rank's images of ``size``, and at rank 0 the sum of all.

        There it leaves the gradient of the mean loss of the whole batch, and returns that loss and the number
        right, each ``[1]``.
        """
        import torch
        from torch import distributed

        with self.talking():
            distributed.broadcast(stack.flat.data, 0, group=self._sums)
        weight = len(labels) / size
        if len(labels):
            loss, right = gradients(inputs, labels)
            stack.gradient.mul_(weight)
            numbers = torch.stack([loss.double() * weight, right.double()])
        else:  # the batch is smaller than the world
            stack.gradient.zero_()
            numbers = torch.zeros(2, 1, dtype=torch.float64, device=stack.gradient.device)
        with self.talking():
            distributed.reduce(stack.gradient, 0, group=self._sums)
            distributed.reduce(numbers, 0, group=self._sums)
        return numbers[0], numbers[1].long()

    @contextlib.contextmanager
    def talking(self, otherwise: str = "") -> Iterator[None]:
        """torch.distributed raises RuntimeError where a connection is closed, and where the store is gone.

        Raises:
            RankLost: it did; `part` finds out the reason.
        """
        try:
            yield
        except RuntimeError as error:
            first = str(error).partition("\n")[0][:200]
            self.broken = otherwise or f"the connection between the ranks broke ({first})"
            raise RankLost from None

    def release(self) -> None:
        from torch import distributed

        if self._sums is not None and distributed.get_backend(self._sums) == "nccl":  # gloo gives up by itself
            self._sums.abort()

    @abc.abstractmethod
    def part(self, error: BaseException | None) -> BaseException | None:
        """Leave, because of ``error`` or because all is done; returns what the process should end with."""

    def close(self) -> None:
        """Close all connections but that to the store."""
        from torch import distributed

        with contextlib.suppress(RuntimeError):
            distributed.destroy_process_group()
