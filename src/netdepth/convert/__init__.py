"""Published weights, which come as a pickle, into safetensors, and from there into a network."""

from netdepth.convert.fit import IMAGENET_MEAN, IMAGENET_STD, load_published
from netdepth.convert.process import Conversion, convert

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Conversion", "convert", "load_published"]
