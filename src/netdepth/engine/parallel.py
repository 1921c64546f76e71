"""Data parallel training of one run under torchrun: who is there, and what they say to one another.

Rank 0 leads. It makes an ordinary run: it alone holds the optimizer, evaluates, decides, writes and shows. The others
follow (`engine.follow`) and compute gradients. At every step rank 0 sends the step's number and the weights, every
rank takes its share of the global batch, and the gradients, weighted by how many images they are of, are summed at
rank 0. So there is nothing to agree on, and no rank can drift from another.

What happens at every step goes through collectives: numbers of steps over gloo, weights and gradients over gloo or,
on GPUs, NCCL. A process that ends closes its connections, and whoever waits for it knows at once. What happens once
goes through the key-value store of torchrun, which outlives every rank:

    begin        what rank 0 is about to train, and how         ready/<r>  r has its data
    asked        a signal that a follower was sent              complaint  why a follower cannot go on
    farewell     rank 0 leaves before the end: its exit code    bye/<r>    r has read that, so it is alive
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from netdepth.engine.signals import signals_as_errors, signals_ignored
from netdepth.errors import BadInput, Interrupted, NetdepthError, RankLost

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from netdepth.data.batches import Batches
    from netdepth.engine.gradients import Gradients
    from netdepth.engine.stack import Stack

__all__ = ["ALONE", "Team", "joined", "only_alone", "rank", "world_size"]

PATIENCE = timedelta(minutes=5)
"""How much longer one rank may need for a step than another. For ranks that are silent, as after a power cut: one that
ends is noticed at once."""
FOREVER = timedelta(days=100)
"""Followers wait for the next step as long as rank 0 evaluates and writes."""
HEED_SECONDS = 0.5
BYE_SECONDS = 10.0
GRACE_SECONDS = 10.0
"""How long a follower whose connection broke waits to be told why, before it says that rank 0 is gone."""
LINGER_SECONDS = 2.0
"""How long a follower stays that was told to go: as soon as one has gone torchrun ends the others, rank 0 too."""
BEGIN, END = -1, -2
_joins = itertools.count()


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
    """The processes that make a run together. A team of one talks to nobody and changes nothing."""

    def __init__(self, rank: int = 0, world: int = 1, store: Any = None) -> None:
        self.rank, self.world = rank, world
        self.local_rank = _variable("LOCAL_RANK", rank) if world > 1 else 0
        self.on_this_machine = _variable("LOCAL_WORLD_SIZE", world) if world > 1 else 1
        self._store = store
        self._sums: Any = None
        self._broken = ""
        self._heeded = 0.0

    # --- what this process computes with ---

    def device(self, name: str) -> str:
        """``--device`` for this rank: each takes the card of its number on its machine."""
        if self.world == 1 or name == "cpu":
            return name
        import torch

        if name not in ("auto", "cuda"):
            raise BadInput(f"--device {name} under torchrun: every rank takes the card of its number; use cuda or cpu")
        return f"cuda:{self.local_rank}" if torch.cuda.is_available() else name

    def backend(self, device: torch.device) -> str | None:
        """The library that moves weights and gradients; None where there is nobody to move them to."""
        if self.world == 1:
            return None
        return "nccl" if device.type == "cuda" else "gloo"

    # --- rank 0 ---

    def begin(self, given: Mapping[str, Any], device: torch.device) -> None:
        """Tell the followers what is about to be trained, and wait until they have their data.

        Raises:
            RankLost: one cannot.
        """
        if self.world == 1:
            return
        self._store.set("begin", json.dumps(given))
        self._order(BEGIN)
        while not self._store.check([f"ready/{other}" for other in range(1, self.world)]):
            self._heed()
            time.sleep(0.05)
        self._connect(device)

    def share(self, gradients: Gradients, stack: Stack, batches: Batches, step: int) -> Gradients:
        """``gradients`` of this rank's images as a function that returns those of the whole batch.

        Its first call is ``step``, each further one the step after. It raises RankLost where a follower is gone, and
        Interrupted where one was sent a signal.
        """
        if self.world == 1:
            return gradients
        steps = itertools.count(step)

        def compute(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            step = next(steps)
            if time.monotonic() - self._heeded > HEED_SECONDS:
                self._heed()
            self._order(step)
            return self.exchange(gradients, stack, inputs, labels, batches.size(step))

        return compute

    def _order(self, number: int) -> None:
        import torch
        from torch import distributed

        with self._talking():
            distributed.broadcast(torch.tensor(number), 0)

    def _heed(self) -> None:
        """Look for what followers have put into the store."""
        self._heeded = time.monotonic()
        with self._talking("torchrun is gone"):
            if self._store.check(["complaint"]):
                raise RankLost
            asked = int(self._store.get("asked")) if self._store.check(["asked"]) else 0
        if asked:
            raise Interrupted("interrupted", asked)

    # --- followers ---

    def begun(self) -> dict[str, Any] | None:
        """What rank 0 gave to `begin`; None if there is nothing to train."""
        if self.next_order() == END:
            return None
        given: dict[str, Any] = json.loads(self._store.get("begin"))
        return given

    def next_order(self) -> int:
        """The number of the next step, once rank 0 is there; or END."""
        import torch
        from torch import distributed

        number = torch.tensor(0)
        with self._talking():
            distributed.broadcast(number, 0)
        return int(number)

    def ready(self, device: torch.device) -> None:
        """Say that steps may come."""
        self._store.set(f"ready/{self.rank}", "")
        self._connect(device)

    # --- both ---

    def _connect(self, device: torch.device) -> None:
        """Open what weights and gradients go through; all ranks do it at the same time."""
        import torch
        from torch import distributed

        if device.type == "cuda":
            torch.cuda.set_device(device)
        with self._talking():
            self._sums = distributed.new_group(backend=self.backend(device), timeout=PATIENCE)

    def exchange(
        self, gradients: Gradients, stack: Stack, inputs: Tensor, labels: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        """One step: rank 0's weights, the gradient of this rank's images of ``size``, and at rank 0 the sum of all.

        There it leaves the gradient of the mean loss of the whole batch, and returns that loss and the number
        right, each ``[1]``.
        """
        import torch
        from torch import distributed

        with self._talking():
            distributed.broadcast(stack.flat.data, 0, group=self._sums)
        weight = len(labels) / size
        if len(labels):
            loss, right = gradients(inputs, labels)
            stack.gradient.mul_(weight)
            numbers = torch.stack([loss.double() * weight, right.double()])
        else:  # the batch is smaller than the world
            stack.gradient.zero_()
            numbers = torch.zeros(2, 1, dtype=torch.float64, device=stack.gradient.device)
        with self._talking():
            distributed.reduce(stack.gradient, 0, group=self._sums)
            distributed.reduce(numbers, 0, group=self._sums)
        return numbers[0], numbers[1].long()

    @contextlib.contextmanager
    def _talking(self, otherwise: str = "the connection between the ranks broke") -> Iterator[None]:
        """torch.distributed raises RuntimeError where a connection is closed, and where the store is gone."""
        try:
            yield
        except RuntimeError:
            self._broken = otherwise
            raise RankLost from None  # `part` finds out the reason

    # --- leaving ---

    def part(self, error: BaseException | None) -> BaseException | None:
        """Leave, because of ``error`` or because all is done; returns what the process should end with."""
        with signals_ignored():
            return self._lead_out(error) if self.rank == 0 else self._drop_out(error)

    def _lead_out(self, error: BaseException | None) -> BaseException | None:
        if error is None:
            with contextlib.suppress(RankLost):  # the run is whole already
                self._order(END)
            self._close()
            return None
        code = error.exit_code if isinstance(error, NetdepthError) else 1
        if isinstance(error, KeyboardInterrupt):
            code = 128 + signal.SIGINT
        reason = self._broken
        with contextlib.suppress(RuntimeError):
            told = json.loads(self._store.get("complaint")) if self._store.check(["complaint"]) else None
            if told is not None:
                reason, code = f"rank {told['rank']}: {told['message']}", told["code"]
            self._store.set("farewell", str(code))
            silent = self._silent()
            if silent and told is None:
                names = f"rank {min(silent)} is" if len(silent) == 1 else f"ranks {sorted(silent)} are"
                reason, code = f"{names} gone (killed, or the machine does not answer)", 1
        if reason and isinstance(error, Interrupted):
            return RankLost(f"{reason}: {error}" if str(error) else reason, code)
        return error

    def _silent(self) -> set[int]:
        """The followers that do not answer the farewell. Where a connection broke there is one: the last."""
        silent = set(range(1, self.world))
        until = time.monotonic() + BYE_SECONDS
        while len(silent) > bool(self._broken) and time.monotonic() < until:
            silent -= {other for other in silent if self._store.check([f"bye/{other}"])}
            time.sleep(0.05)
        return silent

    def _drop_out(self, error: BaseException | None) -> BaseException | None:
        if error is None or isinstance(error, SystemExit):
            self._close()
            return error
        lost = isinstance(error, RankLost)
        if not lost:
            code = error.exit_code if isinstance(error, NetdepthError) else 1
            kind = "" if isinstance(error, NetdepthError) else f"{type(error).__name__}: "
            told = {"rank": self.rank, "message": kind + " ".join(str(error).split()), "code": code}
            with contextlib.suppress(RuntimeError):
                self._store.set("complaint", json.dumps(told))
        self._close()  # rank 0, if it waits for this one, need not wait any longer
        time.sleep(GRACE_SECONDS)  # here `_listen` ends the process, unless rank 0 says nothing any more
        if not lost:
            return error
        who = "rank 0"
        try:
            if self._store.add("said", 1) > 1:  # another follower says it
                return SystemExit(1)
        except RuntimeError:
            who = "rank 0, or torchrun,"
        return RankLost(f"{who} is gone; the same command continues from the newest checkpoint in the run folder")

    def _close(self) -> None:
        from torch import distributed

        with contextlib.suppress(RuntimeError):
            distributed.destroy_process_group()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While a follower waits or computes, in whatever library: pass signals on, and end when rank 0 leaves.

        A follower has nothing to save, so that it may end in the middle of anything.
        """
        numbers = (signal.SIGINT, signal.SIGTERM)
        inlet, outlet = os.pipe()
        os.set_blocking(outlet, False)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
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
                if select.select([inlet], [], [], HEED_SECONDS)[0]:
                    number = os.read(inlet, 1)[0]
                    if number == 0:
                        return
                    self._store.set("asked", str(number))
                if self._store.check(["farewell"]):
                    code = int(self._store.get("farewell"))
                    self._store.set(f"bye/{self.rank}", "")
                    time.sleep(LINGER_SECONDS)
                    os._exit(code)


ALONE = Team()


@contextlib.contextmanager
def joined() -> Iterator[Team]:
    """The team of this process, from its meeting to its parting.

    Raises:
        RankLost: another process of it is gone or cannot go on.
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
    team = Team(me, world, store)
    # Until all have met nothing is there to save, and nobody hears a signal while waiting for the others.
    distributed.init_process_group("gloo", store=store, rank=me, world_size=world, timeout=FOREVER if me else PATIENCE)
    with team.listening() if me else signals_as_errors():
        try:
            yield team
        except BaseException as error:
            ended = team.part(error)
            if ended is error or ended is None:
                raise
            raise ended from None
        else:
            team.part(None)
