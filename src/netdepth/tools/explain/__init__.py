"""What ``netdepth explain`` computes: which pictures, their maps, and whether the maps matter."""

from netdepth.tools.explain.examine import PASSES, Check, Examined, examine
from netdepth.tools.explain.subjects import Subjects, given_pictures, validation_pictures

__all__ = ["PASSES", "Check", "Examined", "Subjects", "examine", "given_pictures", "validation_pictures"]
