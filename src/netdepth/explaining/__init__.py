"""What ``netdepth explain`` computes: which pictures, their maps, and whether the maps matter."""

from netdepth.explaining.examine import PASSES, Check, Examined, examine
from netdepth.explaining.subjects import Subjects, given_pictures, validation_pictures

__all__ = ["PASSES", "Check", "Examined", "Subjects", "examine", "given_pictures", "validation_pictures"]
