"""What rank 0 does besides an ordinary run: it says what is to be computed, and knows why when it has to stop."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netdepth.errors import Interrupted, NetdepthError, RankLost
from netdepth.training.parallel import BEGIN, END, Rank

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from netdepth.data.batches import Batches
    from netdepth.training.gradients import Gradients
    from netdepth.training.stack import Stack

__all__ = ["Leader"]

HEED_SECONDS = 0.5
BYE_SECONDS = 10.0
"""How long rank 0 waits for followers to answer its farewell, before it calls them gone."""


class Leader(Rank):
    """Rank 0."""

    _heeded = 0.0

    def begin(self, given: Mapping[str, Any], device: torch.device) -> None:
        self.store.set("begin", json.dumps(given))
        self.number(BEGIN)
        while not self.store.check([f"ready/{other}" for other in range(1, self.world)]):
            self._heed()
            time.sleep(0.05)
        self.connect(device)

    def share(self, gradients: Gradients, stack: Stack, batches: Batches, step: int) -> Gradients:
        steps = itertools.count(step)

        def compute(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            if time.monotonic() - self._heeded > HEED_SECONDS:
                self._heed()
            step = self.number(next(steps))
            return self.exchange(gradients, stack, inputs, labels, batches.size(step))

        return compute

    def _heed(self) -> None:
        """Look for what followers have put into the store."""
        self._heeded = time.monotonic()
        with self.talking("torchrun is gone"):
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
        with contextlib.suppress(RuntimeError):  # without a store nobody can be asked
            told = json.loads(self.store.get("complaint")) if self.store.check(["complaint"]) else None
            if told is not None:
                reason, code = f"rank {told['rank']}: {told['message']}", told["code"]
            self.store.set("farewell", str(code))
            silent = self._silent()
            if silent and told is None:
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
