"""Trackers: mirrors of a run folder in the formats that other tools read.

Each tracker runs in a process of its own that follows the folder (`netdepth.trackers.follow`), so no fault of a
tracker can reach the training. A new tracker is one new file here, or a user's file with ``--import``.
"""

from netdepth.registry import import_package_modules
from netdepth.trackers.base import TRACKERS, Tracker
from netdepth.trackers.mirror import Mirrors, sync

__all__ = ["TRACKERS", "Mirrors", "Tracker", "sync"]

import_package_modules(__name__, __path__)
