"""What every test shares: a home of its own, no network, one thread, and real data where there are some."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from unittest import mock

import pytest

if TYPE_CHECKING:
    from faults.record import Faults

GIVEN_DATA = os.environ.get("NETDEPTH_DATA")
REQUIRED = os.environ.get("NETDEPTH_REQUIRE", "").split(",")
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"

# Threads and the plotting backend are read at import time, also by the processes that tests start.
# Ray reads once per process whether a token is asked for, and keeps tokens in the home that every test has anew.
MATPLOTLIBRC = str(Path(__file__).with_name("support") / "matplotlibrc")
os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="Agg", MATPLOTLIBRC=MATPLOTLIBRC, RAY_AUTH_MODE="disabled")

# A shell starts what it runs in the background with Ctrl-C ignored, which every process begun here would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the drills of ``tests/faults`` take (`faults.record`)."""
    group = parser.getgroup("faults")
    group.addoption("--faults", type=_scale, default="quick", help="quick, long, or N for N times the quick counts")
    group.addoption("--faults-record", action="store_true", help="write docs/results/reliability")


def _scale(text: str) -> str:
    if text not in ("quick", "long") and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"--faults {text!r} is not acceptable; it takes quick, long or a whole number")
    return text


def lacking(what: str, reason: str) -> NoReturn:
    """Skip the test with ``reason``, or fail it if NETDEPTH_REQUIRE (a list with commas) names ``what``."""
    if what in REQUIRED:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def find_data(name: str) -> Path:
    """The folder to give as ``--data`` so that the data set ``name`` is found there.

    It is $NETDEPTH_DATA, else ``shared/data`` beside the repository.
    """
    root = Path(GIVEN_DATA).absolute() if GIVEN_DATA else BESIDE
    if (root / name).is_dir() and any((root / name).iterdir()):
        return root
    where = f"in NETDEPTH_DATA={root}" if GIVEN_DATA else "(NETDEPTH_DATA is not set)"
    lacking("data", f"no {name} data {where}; get them with: netdepth data fetch {name}")


def find_chromium() -> str:
    """The path of a Chromium or Chrome that can run headless."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    return found or lacking("browser", f"no browser: none of {', '.join(names)} is on the PATH")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The markers ``data("mnist")``, ``browser`` and ``ray`` skip or fail a test before any of its fixtures run."""
    for mark in item.iter_markers("data"):
        find_data(*mark.args)
    if item.get_closest_marker("browser"):
        find_chromium()
    if item.get_closest_marker("ray") and importlib.util.find_spec("ray") is None:
        lacking("ray", "Ray is not installed; get it with: pip install netdepth[ray]")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--cov``, lines are counted in the first case of every test alone: the others mostly run the same ones."""
    if not config.getoption("cov_source", None):
        return
    seen = set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        if test in seen:
            item.add_marker("no_cover")
        seen.add(test)


@pytest.fixture(scope="session")
def faults(request: pytest.FixtureRequest) -> Faults:
    """Makes drills (`faults.record`)."""
    from faults.record import Faults

    return Faults(request.config.getoption("--faults"), request.config.getoption("--faults-record"))


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """``real_data("mnist")`` is the folder for ``--data``; skips where the data are missing."""
    return find_data


@pytest.fixture
def chromium() -> str:
    """The path of the browser, for tests marked ``browser``."""
    return find_chromium()


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
        monkeypatch.setenv(name, str(home))  # it must be there, else W&B takes a folder of its own choice


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    """What a test registers is gone after it; a user's file that it ran would run again."""
    from netdepth.owncode import USER_MODULE
    from netdepth.registry import REGISTRIES, registry_of

    before = set(sys.modules)
    with contextlib.ExitStack() as kept:
        for kind in REGISTRIES:
            kept.enter_context(mock.patch.dict(registry_of(kind)._entries))
        yield
    for name in [name for name in sys.modules if name.startswith(USER_MODULE) and name not in before]:
        del sys.modules[name]


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


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved, to be asked what they show."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **settings: Any) -> None:
        figures.append(figure)
        save(figure, *args, **settings)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A stack that trains to its budget; a module may have another reference of its own."""
    from support.real_stacks import make_stack

    return make_stack(tmp_path_factory.mktemp("reference"), probes=True)


@pytest.fixture(scope="module")
def ending(tmp_path_factory):
    """A stack whose replicas stop at different epochs."""
    from support.real_stacks import ENDING, make_stack

    made = make_stack(tmp_path_factory.mktemp("ending"), ENDING, probes=True)
    steps = [replica.result["steps"] for replica in made]
    assert steps[1] < steps[0] < steps[2], "this is about replicas that stop before others"
    return made


@pytest.fixture
def eager(monkeypatch):
    """Every evaluation is put on disk."""
    from netdepth.training import loop

    monkeypatch.setattr(loop, "WRITE_EVERY_SECONDS", 0.0)
