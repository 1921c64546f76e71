"""Many runs: one after another (`serial`), or a whole study over processes (`study`); every outcome is reported."""

from netdepth.launch.serial import TRACKER_SECONDS, Outcome, exit_code, launch, settle

__all__ = ["TRACKER_SECONDS", "Outcome", "exit_code", "launch", "settle"]
