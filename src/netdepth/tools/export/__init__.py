"""Networks as files for others: ONNX and safetensors, each checked against the network before it is written."""

from netdepth.tools.export.card import model_card
from netdepth.tools.export.formats import FORMATS, Format
from netdepth.tools.export.parity import TOLERANCE, Parity, compare

__all__ = ["FORMATS", "TOLERANCE", "Format", "Parity", "compare", "model_card"]
