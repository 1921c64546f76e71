"""Trackers: mirrors of a run folder in the formats other tools read.

Each runs in a child process that follows the folder (`netdepth.trackers.follow`), so that no
fault of a tracker can reach the training. This file is all a new tracker needs besides its own.
"""

from netdepth.trackers import tensorboard
from netdepth.trackers import wandb as wandb_tracker
from netdepth.trackers.base import TRACKERS, Tracker
from netdepth.trackers.mirror import Mirrors, sync
from netdepth.trackers.tensorboard import board_command

__all__ = ["TRACKERS", "Mirrors", "Tracker", "board_command", "sync", "tensorboard", "wandb_tracker"]
