"""Networks as files for others: ONNX and safetensors, each checked against the network before it is written."""

from netdepth.exports.card import model_card
from netdepth.exports.formats import FORMATS, Format
from netdepth.exports.parity import TOLERANCE, Parity, compare

__all__ = ["FORMATS", "TOLERANCE", "Format", "Parity", "compare", "model_card"]
