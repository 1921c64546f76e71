"""Data parallel training of one run under torchrun: its processes, and the messages between them.

Rank 0 leads. It makes an ordinary run: it alone holds the optimizer, evaluates, decides, writes and shows. The others
follow and compute gradients. At every step rank 0 sends the step's number and the weights, every rank takes its share
of the global batch, and the gradients, weighted by how many images they are of, are summed at rank 0. So there is
nothing to agree on, and no rank can drift from another.

What happens at every step goes through collectives: numbers of steps over gloo, weights and gradients over gloo or, on
GPUs, NCCL. A process that ends closes its connections, and every process that waits for it knows at once. What happens
once goes through the key-value store of torchrun, which outlives every rank:

    begin        what rank 0 is about to train, and how         ready/<r>  r has its data
    asked        a signal that a follower was sent              complaint  why a follower must stop
    farewell     rank 0 leaves before the end: its exit code    bye/<r>    r has read that, so it is alive

torch is imported inside the functions: the command line asks for `rank` before it knows what it has to do.
"""

from __future__ import annotations

import abc
import contextlib
import itertools
import json
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from netdepth.config import derive_seed, from_json, to_json
from netdepth.errors import BadInput, Interrupted, NetdepthError, RankLost
from netdepth.runs import Environment
from netdepth.training.signals import signals_as_errors, signals_ignored

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from netdepth.data.augment import Batches
    from netdepth.training.stack import Gradients, Stack

__all__ = [
    "ALONE", "Follower", "Leader", "Rank", "StartedRun", "Team", "joined", "only_alone", "rank", "world_size",
]  # fmt: skip

PATIENCE = timedelta(minutes=5)
"""How much longer one rank may need for a step than another. For ranks that are silent, as after a power cut; the end
of a process is noticed at once."""
FOREVER = timedelta(days=100)
"""Followers wait for the next step as long as rank 0 evaluates and writes."""
BEGIN, END = -1, -2
"""What is sent in place of a step's number."""
POLL_SECONDS = 0.5
"""How often rank 0 and the followers look into the store."""
BYE_SECONDS = 10.0
"""How long rank 0 waits for followers to answer its farewell, before it counts them as lost."""
GRACE_SECONDS = 10.0
"""How long a follower whose connection broke waits for the reason, before it reports that rank 0 is lost."""
LINGER_SECONDS = 2.0
"""How long a follower waits before it ends: as soon as one has ended, torchrun ends the others, rank 0 too."""
_joins = itertools.count()


def world_size() -> int:
    """How many processes train one run: torchrun's WORLD_SIZE; 1 if not all of its variables are set."""
    given = all(os.environ.get(name) for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"))
    return _variable("WORLD_SIZE", 1) if given else 1


def rank() -> int:
    """The number of this process among them."""
    return _variable("RANK", 0) if world_size() > 1 else 0


def _variable(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else default


def only_alone(what: str) -> None:
    """Raise BadInput if torchrun started several processes: they cannot share ``what``."""
    if world_size() > 1:
        raise BadInput(
            f"{what}: not possible under torchrun (WORLD_SIZE = {world_size()}), which divides the batches of one "
            f"netdepth train; start it without torchrun"
        )


@dataclass(frozen=True)
class StartedRun:
    """The run that rank 0 is about to train, as the followers must know it."""

    fingerprint: str
    environment: Environment


class Team:
    """The processes that train a run together, seen from one of them. This base class is a process alone."""

    rank = 0
    world = 1
    on_this_machine = 1

    def device(self, name: str) -> str:
        """What ``--device`` means for this process."""
        return name

    def backend(self, device: torch.device) -> str | None:
        """The library that moves weights and gradients; None if there is no other process."""
        return None

    def begin(self, run: StartedRun, device: torch.device) -> None:
        """Tell the followers which ``run`` is about to be trained, and wait until they have their data.

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
        """Give up the current step: if another process has ended, a GPU would wait for it without end."""


ALONE = Team()


@contextlib.contextmanager
def joined() -> Iterator[Team]:
    """The team of this process, from the first connection to the last.

    Raises:
        RankLost: another process of it is gone or must stop.
    """
    if world_size() == 1:
        yield ALONE
        return
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    me, world = rank(), world_size()
    store = next(rendezvous("env://", rank=me, world_size=world))[0]
    store = PrefixStore(f"netdepth/{next(_joins)}", store)
    # Before all ranks have met there is nothing to save, and Python handles no signal while it waits for them.
    distributed.init_process_group("gloo", store=store, rank=me, world_size=world, timeout=FOREVER if me else PATIENCE)
    team = Follower(me, world, store) if me else Leader(me, world, store)
    with team.listening() if isinstance(team, Follower) else signals_as_errors():
        try:
            yield team
        except BaseException as error:
            with signals_ignored():
                ended = team.part(error)
            if ended is error or ended is None:
                raise
            raise ended from None
        else:
            team.part(None)


class Rank(Team, abc.ABC):
    """One of several processes. ``store`` is the store that torchrun keeps for all of them."""

    def __init__(self, rank: int, world: int, store: Any = None) -> None:
        self.rank, self.world, self.store = rank, world, store
        self.local_rank = _variable("LOCAL_RANK", rank)
        self.on_this_machine = _variable("LOCAL_WORLD_SIZE", world)
        self.broken = ""
        """What broke; empty if nothing did."""
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


class Leader(Rank):
    """Rank 0: it tells the others what to compute, and knows the reason if the run has to stop."""

    _polled = 0.0

    def begin(self, run: StartedRun, device: torch.device) -> None:
        self.store.set("begin", json.dumps(to_json(run)))
        self.number(BEGIN)
        while not self.store.check([f"ready/{other}" for other in range(1, self.world)]):
            self._poll()
            time.sleep(0.05)
        self.connect(device)

    def share(self, gradients: Gradients, stack: Stack, batches: Batches, step: int) -> Gradients:
        steps = itertools.count(step)

        def compute(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            if time.monotonic() - self._polled > POLL_SECONDS:
                self._poll()
            step = self.number(next(steps))
            return self.exchange(gradients, stack, inputs, labels, batches.size(step))

        return compute

    def _poll(self) -> None:
        """Read the messages of followers in the store."""
        self._polled = time.monotonic()
        with self.talking("torchrun has ended"):
            if self.store.check(["complaint"]):
                raise RankLost
            asked = int(self.store.get("asked")) if self.store.check(["asked"]) else 0
        if asked:
            raise Interrupted("interrupted", asked)

    def part(self, error: BaseException | None) -> BaseException | None:
        if error is None:
            with contextlib.suppress(RankLost):  # the run is whole already
                self.number(END)
            self.close()
            return None
        code = error.exit_code if isinstance(error, NetdepthError) else 1
        if isinstance(error, KeyboardInterrupt):
            code = 128 + signal.SIGINT
        reason = self.broken
        with contextlib.suppress(RuntimeError):  # without a store there is no answer
            complaint = json.loads(self.store.get("complaint")) if self.store.check(["complaint"]) else None
            if complaint is not None:
                reason, code = f"rank {complaint['rank']}: {complaint['message']}", complaint["code"]
            self.store.set("farewell", str(code))
            silent = self._silent()
            if silent and complaint is None:
                names = f"rank {min(silent)} is" if len(silent) == 1 else f"ranks {sorted(silent)} are"
                reason, code = f"{names} gone (killed, or the machine does not answer)", 1
        if reason and isinstance(error, Interrupted):
            return RankLost(f"{reason}: {error}" if str(error) else reason, code)
        return error

    def _silent(self) -> set[int]:
        """The followers that do not answer the farewell. Where one closed its connection it is the last of them."""
        certain = int("by peer" in self.broken)
        silent = set(range(1, self.world))
        until = time.monotonic() + BYE_SECONDS
        while len(silent) > certain and time.monotonic() < until:
            silent -= {other for other in silent if self.store.check([f"bye/{other}"])}
            time.sleep(0.05)
        return silent


class Follower(Rank):
    """A rank other than 0: it only computes gradients of its share of every batch."""

    def wait_for_run(self) -> StartedRun | None:
        """The run that rank 0 is about to train (`Team.begin`); None if there is none."""
        if self.number() == END:
            return None
        run: StartedRun = from_json(StartedRun, json.loads(self.store.get("begin")))
        return run

    def serve(self, gradients: Gradients, stack: Stack, batches: Batches) -> None:
        """Compute the gradients of this rank's share of the batches that rank 0 asks for, until it ends.

        Raises:
            RankLost: rank 0 is gone.
        """
        import torch

        stack.models[0].train()
        self.store.set(f"ready/{self.rank}", "")
        self.connect(stack.flat.device)
        ahead: dict[int, tuple[Tensor, ...]] = {}
        while (step := self.number()) != END:
            images, labels = ahead.pop(step) if step in ahead else batches(step)
            torch.manual_seed(derive_seed(batches.seeds[0], "dropout", step, self.rank))  # masks for its own images
            self.exchange(gradients, stack, images, labels, batches.size(step))
            ahead = {step + 1: batches(step + 1)}  # gathered while rank 0 updates the weights

    def part(self, error: BaseException | None) -> BaseException | None:
        if error is None or isinstance(error, SystemExit):
            self.close()
            return error
        lost = isinstance(error, RankLost)
        if not lost:
            code = error.exit_code if isinstance(error, NetdepthError) else 1
            kind = "" if isinstance(error, NetdepthError) else f"{type(error).__name__}: "
            complaint = {"rank": self.rank, "message": kind + " ".join(str(error).split()), "code": code}
            with contextlib.suppress(RuntimeError):
                self.store.set("complaint", json.dumps(complaint))
        self.close()  # rank 0, if it waits for this one, need not wait any longer
        time.sleep(GRACE_SECONDS)  # here `_listen` ends the process, unless rank 0 says nothing any more
        if not lost:
            return error
        who = "rank 0"
        try:
            if self.store.add("said", 1) > 1:  # another follower says it
                return SystemExit(1)
        except RuntimeError:
            who = "rank 0, or torchrun,"
        return RankLost(f"{who} is gone; the same command continues from the newest checkpoint in the run folder")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While it waits or computes, in whatever library: pass signals on, and end the process when rank 0 leaves.

        A follower has nothing to save, so that it may end in the middle of anything.
        """
        inlet, outlet = os.pipe()
        os.set_blocking(outlet, False)
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        # Python's own handlers wait until a collective returns; this byte does not.
        waking = signal.set_wakeup_fd(outlet, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._listen, args=(inlet,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.write(outlet, b"\0")
            thread.join()
            signal.set_wakeup_fd(waking)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(inlet)
            os.close(outlet)

    def _listen(self, inlet: int) -> None:
        with contextlib.suppress(RuntimeError):  # a store that is gone says nothing; collectives will
            while True:
                if select.select([inlet], [], [], POLL_SECONDS)[0]:
                    number = os.read(inlet, 1)[0]
                    if number == 0:
                        return
                    self.store.set("asked", str(number))
                if self.store.check(["farewell"]):
                    code = int(self.store.get("farewell"))
                    self.store.set(f"bye/{self.rank}", "")
                    time.sleep(LINGER_SECONDS)
                    os._exit(code)
