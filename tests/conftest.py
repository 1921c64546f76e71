"""What every test shares: a home of its own, no network, one thread, and real data where there are some."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

GIVEN_DATA = os.environ.get("NETDEPTH_DATA")
REQUIRED = os.environ.get("NETDEPTH_REQUIRE", "").split(",")
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"

# Threads and the plotting backend are read at import time, also by the processes that tests start.
os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="Agg")


def find_data(name: str) -> Path:
    """The folder to give as ``--data`` so that the data set ``name`` is found there.

    It is $NETDEPTH_DATA, else ``shared/data`` beside the repository. Where it lacks the data
    the test skips with the reason, or fails if NETDEPTH_REQUIRE names ``data``.
    """
    root = Path(GIVEN_DATA).absolute() if GIVEN_DATA else BESIDE
    if (root / name).is_dir() and any((root / name).iterdir()):
        return root
    where = f"in NETDEPTH_DATA={root}" if GIVEN_DATA else "(NETDEPTH_DATA is not set)"
    reason = f"no {name} data {where}; get them with: netdepth data fetch {name}"
    if "data" in REQUIRED:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``@pytest.mark.data("mnist")`` skips or fails a test before any of its fixtures run."""
    for mark in item.iter_markers("data"):
        find_data(*mark.args)


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """``real_data("mnist")`` is the folder for ``--data``; skips where the data are missing."""
    return find_data


@pytest.fixture(scope="session")
def _shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is slow to make anew and holds no state of a test: matplotlib's list of fonts."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory: pytest.TempPathFactory, _shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches, runs and tracker folders in a temporary home; no key, no mirror that answers."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(("WANDB_", "NETDEPTH_")) or name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("MPLCONFIGDIR", str(_shared_home / "matplotlib"))
    monkeypatch.setenv("NETDEPTH_RUNS", str(home / "runs"))
    # Port 9 discards: a test that would download meets a refused connection, not the network.
    monkeypatch.setenv("NETDEPTH_MIRROR", "http://127.0.0.1:9")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        folder = home / name.lower()
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """A run flushes denormals for its process; other tests get them back."""
    import torch

    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Numbers depend on the thread count; tests use one."""
    import torch

    torch.set_num_threads(1)
