"""The contestants of `epoch.py`: one small file each, started as ``python -m contestants.<name>``."""
