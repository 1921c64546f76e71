"""The baselines of `epoch.py`: one small file each, started as ``python -m baselines.<name>``."""
