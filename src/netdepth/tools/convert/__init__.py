"""Published weights, which come as a pickle, into safetensors, and from there into a network."""

from netdepth.tools.convert.fit import IMAGENET_MEAN, IMAGENET_STD, load_published
from netdepth.tools.convert.process import Conversion, convert
from netdepth.tools.convert.published import Published, open_published

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Conversion",
    "Published",
    "convert",
    "load_published",
    "open_published",
]
