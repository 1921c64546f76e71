"""What the ranks behind rank 0 do (`engine.parallel`): gradients of their share of every batch, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

from netdepth import data
from netdepth.config import RunConfig, Runtime, derive_seed
from netdepth.errors import BadInput, NetdepthError, RankLost
from netdepth.training.gradients import choose_gradients
from netdepth.training.loop import laid_out
from netdepth.training.objectives import OBJECTIVES
from netdepth.training.parallel import END, Rank
from netdepth.training.process import configure
from netdepth.training.resolve import build_model, fingerprint, resolve

__all__ = ["Follower"]

LISTEN_SECONDS = 0.5
GRACE_SECONDS = 10.0
"""How long a follower whose connection broke waits to be told why, before it says that rank 0 is gone."""
LINGER_SECONDS = 2.0
"""How long a follower stays that was told to go: as soon as one has gone torchrun ends the others, rank 0 too."""


class Follower(Rank):
    """A rank that is not 0."""

    def follow(self, config: RunConfig, runtime: Runtime) -> NoReturn:
        """Serve rank 0, which makes the run of ``config``, until it has enough.

        Raises:
            SystemExit: always, at the end: what comes after the training is for rank 0 alone.
            BadInput: this process would train something else.
            RankLost: rank 0 is gone.
        """
        if self.number() != END:
            self._serve(config, runtime, json.loads(self.store.get("begin")))
        raise SystemExit(0)

    def _serve(self, config: RunConfig, runtime: Runtime, given: dict[str, Any]) -> None:
        process = configure(runtime, recorded=given["environment"], team=self)
        config = resolve(config, runtime.device)
        splits = data.load(config.dataset, data_dir=runtime.data_dir)  # after rank 0, which may have filled the cache
        mark = fingerprint(config, splits.spec)
        if mark != given["fingerprint"]:
            raise BadInput(
                f"its fingerprint is {mark}, not rank 0's {given['fingerprint']}: its options, data or files are others"
            )
        stack, batches = laid_out(config, [build_model(config, splits, self.world)], process, splits, [config.seed])
        gradients = choose_gradients(stack, OBJECTIVES.build(config.objective))
        stack.models[0].train()
        self.store.set(f"ready/{self.rank}", "")
        self.connect(process.device)
        ahead: dict[int, tuple[Tensor, ...]] = {}
        while (step := self.number()) != END:
            images, labels = ahead.pop(step) if step in ahead else batches(step)
            torch.manual_seed(derive_seed(config.seed, "dropout", step, self.rank))  # its own masks for its own images
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
            told = {"rank": self.rank, "message": kind + " ".join(str(error).split()), "code": code}
            with contextlib.suppress(RuntimeError):
                self.store.set("complaint", json.dumps(told))
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
                if select.select([inlet], [], [], LISTEN_SECONDS)[0]:
                    number = os.read(inlet, 1)[0]
                    if number == 0:
                        return
                    self.store.set("asked", str(number))
                if self.store.check(["farewell"]):
                    code = int(self.store.get("farewell"))
                    self.store.set(f"bye/{self.rank}", "")
                    time.sleep(LINGER_SECONDS)
                    os._exit(code)
