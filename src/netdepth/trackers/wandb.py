"""Weights & Biases: the real client, offline unless asked."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from netdepth.errors import StorageError
from netdepth.runs import RunResult
from netdepth.trackers.base import TRACKERS, Tracker, Values, confusion_matrix, final_metrics, mirror_folder, run_id

__all__ = ["read_log", "require_complete", "wandb"]

SUMMARY = ("status", "steps", "best_step", "best_epoch", "reported", "depth", "num_params", "overfit_onset_epoch")

HONOURED = ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_TAGS", "WANDB_RUN_GROUP", "WANDB_NAME")
"""Variables that say where a run belongs and what it is called; offline, all others of the client are kept out."""

HEADER, BLOCK, CHUNK = 7, 32768, struct.Struct("<IHB")
FULL, LAST = 1, 4
"""Sizes and kinds of LevelDB's log format, after a header of 7 bytes."""


@TRACKERS.register("wandb", package="wandb")
def wandb(
    run_dir: Path,
    *,
    online: Annotated[bool, "upload to the server of WANDB_BASE_URL; a stored key alone never does"] = False,
    project: Annotated[str, "the W&B project, unless WANDB_PROJECT names one"] = "netdepth",
) -> Tracker:
    """Weights & Biases, offline unless --wandb-online; `wandb sync` uploads the folder later.

    WANDB_PROJECT, WANDB_ENTITY, WANDB_TAGS, WANDB_RUN_GROUP and WANDB_NAME say where the run belongs, also offline.
    """
    return WeightsAndBiases(run_dir, online, project)


class WeightsAndBiases:
    """One W&B run in ``<run>/wandb``. The process is the tracker's own, its environment too."""

    def __init__(self, run_dir: Path, online: bool, project: str) -> None:
        self.run_dir, self.online, self.project = run_dir, online, project
        self.folder = mirror_folder(run_dir, "wandb")
        self.config: Mapping[str, object] = {}
        self.step = 0
        self.known = 0
        self.steps: set[int] = set()

    def start(self, config: Mapping[str, object]) -> None:
        self.config = config
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prepare_environment()
        import wandb

        # What the run folder records is all that leaves: no code, git, packages, host, user, statistics, console.
        settings = wandb.Settings(
            silent=True,
            console="off",
            save_code=False,
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            x_transaction_log_flush_interval=1.0,
            use_dot_wandb=False,
            symlink=False,
            host="",
            program="netdepth",
        )
        project, entity, tags, group, name = (os.environ.get(name, "").strip() for name in HONOURED)
        self.run = wandb.init(
            project=project or self.project,
            entity=entity or None,
            tags=[tag.strip() for tag in tags.split(",") if tag.strip()] or None,
            group=group or self.run_dir.parent.name,  # the study
            name=name or self.run_dir.name,
            dir=str(self.run_dir),
            id=f"{config['fingerprint']}-s{config['seed']}-{run_id(self.run_dir)}",
            config={key: value for key, value in config.items() if key != "schema"},
            mode="online" if self.online else "offline",
            resume="allow" if self.online else None,
            settings=settings,
        )
        # The server of a resumed run holds the steps below this one; the replay sends only what is new.
        self.known = self.run.step if self.run.resumed else 0

    def _prepare_environment(self) -> None:
        """Keep the client's files inside the mirror and, offline, every stored setting out."""
        if not self.online:
            for name in [name for name in os.environ if name.startswith("WANDB_") and name not in HONOURED]:
                del os.environ[name]
            os.environ["WANDB_CONFIG_DIR"] = str(self.folder / "config")
        os.environ.pop("WANDB_MODE", None)
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        os.environ["WANDB_DATA_DIR"] = str(self.folder / "data")
        os.environ["WANDB_CACHE_DIR"] = str(self.folder / "cache")

    def log(self, record: Mapping[str, object], step: int) -> None:
        self.step = step
        if step < self.known:
            return
        import wandb

        values = Values.of(record)
        row: dict[str, object] = dict(values.scalars)
        row.update({name: wandb.Histogram(vector) for name, vector in values.vectors.items()})
        row.update({name: self._image(picture) for name, picture in values.pictures.items()})
        self.run.log(row, step=step)
        self.steps.add(step)

    def artifact(self, path: Path) -> None:
        import wandb

        if path.suffix == ".png":
            self._last_row({f"figures/{path.stem}": self._image(path.read_bytes())})
        elif path.suffix == ".safetensors":
            step = int(path.parent.name)
            weights = wandb.Artifact(str(self.run.id), type="model", metadata={"step": step})
            # The checkpoint itself, not a copy: the store writes it once and keeps the best.
            weights.add_file(str(path), policy="immutable", skip_cache=True)
            self.run.log_artifact(weights)

    def finish(self, result: RunResult) -> None:
        self.run.summary.update({name: item for name, item in result.items() if name in SUMMARY and item is not None})
        self.run.summary.update(final_metrics(result))
        picture = confusion_matrix(result, self.config)
        if picture is not None:
            self._last_row({"confusion": self._image(picture)})
        import wandb

        log = Path(self.run.settings.sync_file)
        self.run.finish(exit_code=1 if result["status"] in ("failed", "interrupted") else 0)
        wandb.teardown()  # the file is whole once the client's own process has ended
        require_complete(log, self.steps)

    def _last_row(self, row: Mapping[str, object]) -> None:
        self.run.log(dict(row), step=max(self.step, self.known))

    def _image(self, png: bytes) -> Any:
        import io

        import wandb
        from PIL import Image

        return wandb.Image(Image.open(io.BytesIO(png)))


def read_log(path: Path) -> Iterator[Any]:
    """Every ``wandb_internal_pb2.Record`` of a ``.wandb`` file, which holds them in LevelDB's log format.

    Raises:
        StorageError: the file is no ``.wandb`` file, or cut off or damaged within a record.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    position, parts = HEADER, b""
    if data[:4] != b":W&B":
        raise StorageError(f"{path} is not a .wandb file or is empty")
    while position < len(data):
        left = BLOCK - position % BLOCK
        if left < CHUNK.size:  # the end of a block that is too short for a chunk header is padding
            position += left
            continue
        if position + CHUNK.size > len(data):
            raise StorageError(f"{path} is cut off at byte {len(data)}")
        _, length, kind = CHUNK.unpack_from(data, position)
        position += CHUNK.size
        parts += data[position : position + length]
        position += length
        if kind in (FULL, LAST):
            message = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            try:
                message.ParseFromString(parts)
            except DecodeError:
                raise StorageError(f"{path} is damaged before byte {position}") from None
            parts = b""
            yield message


def require_complete(path: Path, steps: Iterable[int]) -> None:
    """Check that the file holds a history row for every step in ``steps`` and the run's end.

    The client reports no error when it cannot write the file (a full disk).

    Raises:
        StorageError: it does not.
    """
    found: set[int] = set()
    ended = False
    for message in read_log(path):
        kind = message.WhichOneof("record_type")
        ended |= kind == "exit"
        if kind == "history":
            found |= {json.loads(i.value_json) for i in message.history.item if "_step" in (i.key, *i.nested_key)}
    missing = len(set(steps) - found)
    if missing or not ended:
        raise StorageError(f"{path} is incomplete ({missing} evaluations missing): disk full or I/O error")
