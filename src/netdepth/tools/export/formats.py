"""A network as the bytes of a file and back, one pair of functions per format; and whether both compute the same."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from netdepth import models
from netdepth.config import Component, from_json
from netdepth.errors import BadInput, RunFailed
from netdepth.models import Network
from netdepth.text import plain

__all__ = ["FORMATS", "TOLERANCE", "Format", "Parity", "compare"]

INPUT, OUTPUT = "pixels", "logits"
ONNX_MODULES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-5
BATCHES = (1, 3)
"""Sizes of the first batches; the other images are one batch. A file with a fixed batch size fails here."""

Logits = Callable[[np.ndarray], np.ndarray]
"""uint8 pixels ``[N, C, H, W]`` to logits ``[N, K]``, as the exported file computes them."""


@dataclass(frozen=True)
class Format:
    """A format: ``write`` turns a network in eval mode and metadata (text by name) into the file's bytes, ``read``
    turns the bytes into a function that gives logits. ``check`` raises BadInput if a needed package is missing."""

    suffix: str
    write: Callable[[Network, Mapping[str, str]], bytes]
    read: Callable[[bytes], Logits]
    check: Callable[[], None]


def _onnx_installed() -> None:
    missing = [name for name in ONNX_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInput(f"--to onnx needs {', '.join(missing)}; get it with: pip install netdepth[onnx]")


def _onnx_bytes(model: Network, metadata: Mapping[str, str]) -> bytes:
    """The graph from uint8 pixels ``[batch, C, H, W]`` to logits ``[batch, K]``, with normalisation, for any batch."""
    example = torch.zeros(2, *model.input_shape, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it says that torchvision is missing
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning):  # of the exporter's own code
            warnings.simplefilter("ignore", category)
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
    weights = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}  # some share memory
    content: bytes = safetensors.torch.save(weights, dict(metadata))
    return content


def _safetensors_logits(data: bytes) -> Logits:
    """The network that the file's own metadata describe, with the file's weights."""
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


# --- whether the file computes what the network computes ---


@dataclass(frozen=True)
class Parity:
    """The largest differences over ``images``: of a probability, and of a logit in units of the largest logit's size
    in its image (of 1 where that is smaller)."""

    images: int
    logit: float
    probability: float
    same_class: int

    @property
    def holds(self) -> bool:
        """Both differences are at most `TOLERANCE`; NaN is not."""
        return self.logit <= TOLERANCE and self.probability <= TOLERANCE


def compare(model: Network, exported: Logits, images: Tensor) -> Parity:
    """The logits of ``model`` in eval mode against those of the exported file, on uint8 ``images`` ``[N, C, H, W]``.

    float32 has seven digits, so logits of a few tens cannot agree to 1e-5 in absolute terms in any
    implementation: they are compared relative to the largest of their image, probabilities absolutely.

    Raises:
        RunFailed: they differ by more than `TOLERANCE`, or have another shape.
    """
    with torch.inference_mode():
        expected = model.eval()(images).double().numpy()
    parts, start = [], 0
    for size in (*BATCHES, len(images)):
        if start < len(images):
            parts.append(exported(images[start : start + size].numpy()))
            start += size
    found = np.concatenate(parts).astype(np.float64)
    if found.shape != expected.shape:
        raise RunFailed(f"the exported network gives logits of shape {found.shape}, not {expected.shape}")
    scale = np.maximum(np.abs(expected).max(axis=1, keepdims=True), 1.0)
    parity = Parity(
        images=len(images),
        logit=float((np.abs(found - expected) / scale).max()),
        probability=float(np.abs(_softmax(found) - _softmax(expected)).max()),
        same_class=int((found.argmax(1) == expected.argmax(1)).sum()),
    )
    if not parity.holds:
        raise RunFailed(
            f"the exported network is not the trained one: on {parity.images} images logits differ by up to "
            f"{plain(parity.logit, 2)} of the largest and probabilities by up to {plain(parity.probability, 2)}, "
            f"{parity.same_class} have the same class; {plain(TOLERANCE)} is allowed. Nothing was written"
        )
    return parity


def _softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(1).numpy()
