"""TensorBoard: event files written with TensorBoard's own protobufs; no TensorFlow, no torch.

TensorBoard calls a run by the folder of its events, so the one file of this mirror lies in the run folder itself. It
sorts groups of charts by name, so the names here let it open on accuracy and loss.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netdepth.runs import RunResult
from netdepth.trackers.base import TRACKERS, Tracker, Values, confusion_matrix, final_metrics, flat_config

__all__ = ["tensorboard"]

TAGS = {
    "train/loss": "loss/train",
    "val/loss": "loss/val",
    "train/accuracy": "accuracy/train",
    "val/accuracy": "accuracy/val",
    "lr": "optimizer/lr",
    "gradients/norm": "optimizer/gradient_norm",
    "gradients/layer_norms": "optimizer/gradient_norms_of_layers",
    "epoch": "time/epoch",
    "seconds": "time/seconds",
}
"""Name in a tracker -> tag: what is measured first, then of what. Only accuracy comes before loss in the alphabet."""
EVENTS = "events.out.tfevents.{}.netdepth"
SINGLE = ("overfitting/onset_epoch",)
"""One number of a run and no curve; it stands in the text of the result."""


@TRACKERS.register("tensorboard", package="tensorboard")
def tensorboard(run_dir: Path) -> Tracker:
    """TensorBoard event files: curves, histograms, hyperparameters, result, confusion matrix."""
    return TensorBoard(run_dir)


class TensorBoard:
    """Writes each event at once and in this thread, so that a full disk is an error here and not lost."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.step = 0
        # Seconds since the epoch at which the run began; the records' own durations are added to it,
        # so a rebuilt mirror shows the times of the run and not those of the rebuild.
        self.wall_time = 0.0
        self.config: Mapping[str, object] = {}

    def start(self, config: Mapping[str, object]) -> None:
        from tensorboard.plugins.hparams import summary_v2
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.config = config
        self.wall_time = (self.run_dir / "config.json").stat().st_mtime
        for old in self.run_dir.glob(EVENTS.format("*")):
            old.unlink()
        path = self.run_dir / EVENTS.format(f"{int(self.wall_time):010d}")
        self.writer = RecordWriter(open(path, "wb"))  # noqa: SIM115 (closed in finish)
        self._event(file_version="brain.Event:2")
        trial = self.run_dir.name
        self._event(summary=summary_v2.hparams_pb(flat_config(config), trial, self.wall_time))
        text = "\n".join(f"    {line}" for line in json.dumps(dict(config), indent=1).splitlines())
        self._event(summary=text_pb("config", text))

    def log(self, record: Mapping[str, object], step: int) -> None:
        from tensorboard.plugins.histogram.summary_v2 import histogram_pb

        self.step = step
        values = Values.of(record)
        seconds = values.scalars.get("seconds", 0.0)
        self.wall_time += seconds if math.isfinite(seconds) else 0.0
        self._scalars({_tag(name): value for name, value in values.scalars.items() if name not in SINGLE})
        for name, vector in values.vectors.items():
            self._event(summary=histogram_pb(_tag(name), vector))
        for name, picture in values.pictures.items():
            self._image(_tag(name), picture)

    def artifact(self, path: Path) -> None:
        if path.suffix == ".png":
            self._image(f"pictures/{path.stem}", path.read_bytes())

    def finish(self, result: RunResult) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
        from tensorboard.plugins.text.summary_v2 import text_pb

        self.step = result.get("steps") or self.step
        # Each is one number, which a chart would show as one point.
        single = {name: result.get(name) for name in ("status", "depth", "num_params", "best_epoch")}
        single |= {"overfit_onset_epoch": result.get("overfit_onset_epoch"), **final_metrics(result)}
        rows = [f"| {name} | {value} |" for name, value in single.items() if value is not None]
        self._event(summary=text_pb("result", "\n".join(["| | |", "| --- | --- |", *rows])))
        picture = confusion_matrix(result, self.config)
        if picture is not None:
            self._image("pictures/confusion", picture)
        outcomes = {"failed": api_pb2.STATUS_FAILURE, "interrupted": api_pb2.STATUS_UNKNOWN}
        status = outcomes.get(result["status"], api_pb2.STATUS_SUCCESS)
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=self.wall_time)
        about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
        value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
        self._event(summary=Summary(value=[value]))
        self.writer.close()

    def _scalars(self, scalars: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=_float32(value)) for name, value in scalars.items()]
        if values:
            self._event(summary=Summary(value=values))

    def _image(self, name: str, png: bytes) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        # Every PNG begins with its signature and the IHDR chunk: width and height stand at bytes 16 to 24.
        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
        self._event(summary=Summary(value=[Summary.Value(tag=name, image=image)]))

    def _event(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=self.wall_time, step=self.step, **content)
        self.writer.write(event.SerializeToString())
        self.writer.flush()


def _tag(name: str) -> str:
    return TAGS.get(name, name if "/" in name and name > "loss" else f"metrics/{name}")


def _float32(value: float) -> float:
    """``value`` as the protobuf's float32 field can hold it: beyond its range is infinite, not an error."""
    return value if math.isnan(value) or abs(value) <= 3.4028234e38 else math.copysign(math.inf, value)
