"""A network as the bytes of a file, and those bytes as a network again: one pair of functions per format."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from netdepth import models
from netdepth.config import Component, from_json
from netdepth.errors import BadInput
from netdepth.models import Network
from netdepth.tools.export.parity import Logits

__all__ = ["FORMATS", "Format"]

INPUT, OUTPUT = "pixels", "logits"
ONNX_MODULES = ("onnx", "onnxruntime", "onnxscript")


@dataclass(frozen=True)
class Format:
    """A format: ``write`` makes the file's bytes of a network in eval mode and of metadata (text by name), ``read``
    makes of the bytes what gives logits. ``check`` raises BadInput where what they need is not installed."""

    suffix: str
    write: Callable[[Network, Mapping[str, str]], bytes]
    read: Callable[[bytes], Logits]
    check: Callable[[], None]


def _onnx_installed() -> None:
    missing = [name for name in ONNX_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInput(f"--to onnx needs {', '.join(missing)}; get it with: pip install netdepth[onnx]")


def _onnx_bytes(model: Network, metadata: Mapping[str, str]) -> bytes:
    """The graph from uint8 pixels ``[batch, C, H, W]`` to logits ``[batch, K]``, normalisation inside, batch free."""
    example = torch.zeros(2, *model.input_shape, dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
        assert program is not None
        proto = program.model_proto
    for key, value in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    data: bytes = proto.SerializeToString()
    return data


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What torch's exporter says about itself, not about the network: deprecations of its own, no torchvision."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|copyreg|onnxscript|onnx_ir)")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(torch|onnxscript|onnx_ir)")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def _onnx_logits(data: bytes) -> Logits:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def logits(pixels: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.run([OUTPUT], {INPUT: pixels})[0]
        return found

    return logits


def _safetensors_bytes(model: Network, metadata: Mapping[str, str]) -> bytes:
    import safetensors.torch

    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    content: bytes = safetensors.torch.save(weights, dict(metadata))
    return content


def _safetensors_logits(data: bytes) -> Logits:
    """The network that the file's own metadata describe, with the file's weights."""
    import safetensors.torch

    length = int.from_bytes(data[:8], "little")
    described = json.loads(data[8 : 8 + length])["__metadata__"]
    shape, classes = json.loads(described["input_shape"]), json.loads(described["classes"])
    component = from_json(Component, json.loads(described["model"]), "model")
    model = models.build(component, (shape[0], shape[1], shape[2]), len(classes))
    weights = safetensors.torch.load(data)
    model.to(next(weights[name].dtype for name, _ in model.named_parameters()))
    model.load_state_dict(weights)
    model.eval()

    @torch.inference_mode()
    def logits(pixels: np.ndarray) -> np.ndarray:
        found: np.ndarray = model(torch.from_numpy(pixels)).numpy()
        return found

    return logits


FORMATS = {
    "onnx": Format(".onnx", _onnx_bytes, _onnx_logits, _onnx_installed),
    "safetensors": Format(".safetensors", _safetensors_bytes, _safetensors_logits, lambda: None),
}
"""By the name that ``--to`` takes."""
