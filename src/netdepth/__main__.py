"""``python -m netdepth`` is the command ``netdepth``."""

from netdepth.cli import entry

if __name__ == "__main__":
    entry()
