"""The command line: grammar, answers, exit codes; training itself is replaced by a stand-in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.cli_world import Ask, World
from support.made_runs import make_run
from support.mutated_lines import LINES, build_safe_world, check

from netdepth import __version__
from netdepth.cli import main
from netdepth.config import StartFrom, TrainConfig, to_json
from netdepth.data.mnist import MNIST
from netdepth.errors import Interrupted, Locked, RunFailed, StorageError

HEAVY = ["torch", "numpy", "pandas", "matplotlib", "rich", "wandb", "tensorboard", "sklearn", "scipy"]


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["--version"], ["trian"]])
def test_help_and_refusals_import_nothing_heavy(argv: list[str]) -> None:
    code = (
        f"import sys; from netdepth.cli import main; main({argv!r}); "
        f"sys.exit(str([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "[]"


def test_no_command_shows_the_help_and_version_stands_everywhere(ask: Ask) -> None:
    assert ask()[0] == 0
    assert "quickstart" in ask()[1]
    assert ask("--version")[1] == ask("train", "--version")[1] == f"netdepth {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["trian"], ["unknown command 'trian'", "did you mean 'train'?", "compare"]),
        (["train", "x", "--epoch", "3"], ["'--epoch'", "did you mean '--epochs'?", "--dataset"]),
        (["train", "x", "--refresh"], ["'--refresh'; choose from"]),  # no --fresh, nor what is less near
        (["runs", "rm", "baseline-mlp-s0", "--yet"], ["'--yet'; choose from"]),
        (["train", "x", "--sead", "3"], ["'--sead'", "did you mean '--seed'?", "--dataset"]),
        (["train"], ["required: RECIPE"]),
        (["train", "basline-mlp"], ["'basline-mlp'", "did you mean 'baseline-mlp'?", "mlp-regularised"]),
        (["train", "baseline-mlp", "--seed", "-1"], ["--seed"]),
        (["train", "baseline-mlp", "--seed", "1.5"], ["--seed '1.5'", "whole number"]),
        (["train", "baseline-mlp", "--seed", "1", "--seeds", "2"], ["both given"]),
        (["train", "baseline-mlp", "--seeds", "0"], ["--seeds"]),
        (["train", "baseline-mlp", "--threads", "0"], ["--threads '0'", "1 to 1024"]),
        (["train", "baseline-mlp", "--set", "train.budget=3x"], ["train.budget", "2000it"]),
        (["train", "baseline-mlp", "--wandb-online"], ["--track wandb"]),
        (["train", "baseline-mlp", "extra"], ["unexpected argument 'extra'"]),
        (["train", "my.py"], ["my.py:broken"]),
        (["train", "my.py:tinny"], ["'tinny'", "did you mean 'tiny'?"]),
        (["train", "my.py:wrong"], ["returns int", "RunConfig"]),
        (["train", "my.py:broken"], ["NameError", "at line 11"]),
        (["train", "none.json"], ["none.json", "No such file"]),
        (["train", "baseline-mlp", "--import", "none.py"], ["none.py", "No such file"]),
        (["compare", "nothing-like-it"], ["no run 'nothing-like-it'", "baseline-mlp-s0-0123456789"]),
        (["compare", "baseline-mlp-s"], ["ambiguous", "baseline-mlp-s1-0123456789"]),
        (["compare", ""], ["cannot be a name or a path"]),
        (["compare", "a" * 5000], ["cannot be a name or a path"]),
        (["runs", "rm", "baseline-mlp-s0"], ["see netdepth runs rm --help"]),
        (["runs", "lst"], ["unknown action 'lst'", "did you mean 'list'?"]),
        (["data", "fetch", "mnits"], ["'mnits'", "did you mean 'mnist'?"]),
        (["board", "nowhere"], ["no folder 'nowhere'"]),
        (["train", "\x1b[31mred\nline\udcff"], ["\\x1b[31mred\\nline\\udcff"]),
        (["--json", "list"], ["'--json' must stand after 'netdepth list'"]),
        (["train", "depth-mlp"], ["depth-mlp is a study; run it with: netdepth study depth-mlp"]),
        (["study", "depth-mpl5k"], ["did you mean 'depth-mlp5k'"]),
        (["study", "my.py:tiny"], ["my.py:tiny is not a study; run it with: netdepth train my.py:tiny"]),
        (["study", "depth-mlp5k", "--threads", "4"], ["use --workers 4"]),
        (["study", "depth-mlp5k", "--workers", "many"], ["--workers 'many' is not acceptable"]),
        (["study", "depth-mlp5k", "--seed", "3"], ["option of netdepth study"]),
        (["report", "nothing"], ["no run or study 'nothing' under", "baseline-mlp-s0"]),
        (["verdict", "nothing", "--chek"], ["unknown option of netdepth verdict: '--chek'"]),
        (["runs", "--json", "list"], ["'--json' must stand after 'netdepth runs list'"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_with_the_good_ones(ask: Ask, world: World, argv: list[str], parts: list[str]) -> None:
    before = world.tree()
    code, out, err = ask(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("netdepth: error: ")
    assert err.count("\n") == 1
    assert not [part for part in parts if part not in err], err
    assert world.launched == []
    assert world.tree() == before


def test_good_command_lines_are_accepted_and_touch_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines that a drill in ``tests/faults`` mutates."""
    world = build_safe_world(tmp_path, monkeypatch)
    (world.folder / "here").mkdir()
    (world.folder / "here" / "events.out.tfevents.1.netdepth").touch()
    for argv in LINES:
        if argv[0] not in ("predict", "explain") and "rm" not in argv:
            assert check(world, argv, tmp_path) == 0, argv


# --- reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["markdown", "csv", "latex"])
def test_compare_prints_each_style(ask: Ask, style: str) -> None:
    code, out, err = ask("compare", "baseline-mlp-s0", "baseline-mlp-s1", "baseline-mlp-s1", f"--{style}")
    assert (code, err) == (0, "")
    assert out.count("stopped") == 2


def test_compare_passes_over_what_a_shell_pattern_finds_beside_the_runs(ask: Ask, world: World) -> None:
    stray = world.runs / "notes.txt"
    stray.touch()
    runs = sorted(str(path) for path in world.runs.glob("*/*baseline-mlp-s[01]-0*"))
    code, out, err = ask("compare", *runs, str(stray), str(world.runs))
    assert (code, err.count("\n")) == (0, 1)
    assert f"passed over, being neither a run nor a study: {stray} and {world.runs}" in err
    assert out == ask("compare", *runs)[1]
    code, _, err = ask("compare", str(stray))
    assert code == 2
    assert f"{stray} is neither a run nor a study" in err


def test_compare_warns_once_of_different_data(ask: Ask, world: World) -> None:
    make_run(world.runs, dataset="fashion-mnist", fingerprint="f" * 10)
    code, out, err = ask("compare", "baseline-mlp-s0-0", "baseline-mlp-s0-f")
    assert code == 0
    assert err.count("\n") == 1
    assert "cannot be compared" in err
    assert "fashion-mnist" in out


@pytest.mark.parametrize("kind", ["recipes", "models", "datasets", "optimizers", "schedules", "objectives", "trackers"])
def test_list_names_every_setting_with_type_default_and_meaning(ask: Ask, kind: str) -> None:
    document = json.loads(ask("list", kind, "--json")[1])[kind]
    code, out, _ = ask("list", kind, "-v")
    assert code == 0
    assert document
    for entry in document:
        assert entry["name"] in out
        for setting in entry["settings"]:
            assert all(str(setting[key]) in out for key in ("name", "type", "meaning"))


def test_list_settings_names_every_path_that_set_takes(ask: Ask) -> None:
    found = json.loads(ask("list", "settings", "--json")[1])["settings"]
    wanted = {f"train.{path}" for path in to_json(TrainConfig())} | {f"start_from.{p}" for p in to_json(StartFrom("x"))}
    wanted |= {"dataset", "model", "objective", "optimizer", "schedule", "augmentation"}
    wanted |= {"train.early_stopping.patience", "optimizer.lr", "model.hidden", "dataset.val_size"}
    assert wanted <= {one["path"] for one in found}
    assert all(one["type"] and one["meaning"] and "default" in one for one in found)
    assert "images per step, over all processes (--batch-size)" in ask("list", "settings")[1]


def test_list_shows_what_an_imported_file_registers(ask: Ask, world: World) -> None:
    text = "from netdepth.recipes import RECIPES\n@RECIPES.register('of-mine')\ndef mine():\n    'My own.'\n"
    (world.folder / "mine.py").write_text(text)
    assert "of-mine" in ask("list", "recipes", "--import", "mine.py")[1]


def test_data_list_and_verify(ask: Ask, world: World) -> None:
    assert "mnist5k" in ask("data", "list")[1]
    (file,) = [file for file in MNIST.files if "train-images" in file.name]
    whole = ask("data", "list", "-v")[1]  # for a machine without a network
    assert f"{file.name}  sha256 {file.sha256}" in whole
    assert f"from {MNIST.mirrors[0]}/" in whole
    assert "--data DIR; sha256 of the decompressed content" in whole
    code, out, _ = ask("data", "verify", "mnist", "--data", str(world.folder))
    assert code == 1
    assert out.count("missing") == 4


def test_doctor_says_what_works_and_leaves_nothing_behind(ask: Ask, world: World) -> None:
    before = world.tree()
    code, out, _ = ask("doctor")
    assert (code, "writable" in out) == (0, True)
    assert world.tree() == before
    code, out, _ = ask("doctor", "--device", "cuda:99", "--json")
    assert code == 1
    assert {"what": "device", "state": "bad"}.items() <= json.loads(out)["checks"][1].items()


def test_board_runs_tensorboard_until_it_is_interrupted(
    ask: Ask, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []

    def interrupted(command: list[str]) -> int:
        called.append(command)
        raise KeyboardInterrupt

    monkeypatch.setattr("subprocess.call", interrupted)
    code, _, err = ask("board")
    assert (code, called) == (2, [])
    assert "no events of TensorBoard below" in err
    assert "netdepth sync RUN --to tensorboard" in err
    (world.runs / "single").mkdir(exist_ok=True)
    (world.runs / "single" / "events.out.tfevents.1.netdepth").touch()
    assert ask("board", "--port", "7007")[0] == 0
    assert called[0][3:7] == ["--logdir", str(world.runs), "--host", "127.0.0.1"]
    assert called[0][7] == "--grpc_data_provider"
    assert called[0][9:] == ["--port", "7007"]
    monkeypatch.setitem(sys.modules, "tensorboard_data_server", None)  # there is none for every platform
    assert ask("board")[0] == 0
    assert called[1] == called[0][:7]


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (RunFailed("crashed"), 1, "crashed"),
        (StorageError("disk full"), 74, "disk full"),
        (Locked("in use"), 75, "in use"),
        (Interrupted("saved", 15), 143, "saved"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "x"), 74, "x: No space left on device"),
        (ZeroDivisionError("oh\nno"), 1, "internal error: ZeroDivisionError: oh\\nno (NETDEPTH_DEBUG=1 shows where)"),
        (signal.SIGTERM, 143, "interrupted"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_every_error_and_signal_has_its_exit_code(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, error: BaseException | signal.Signals, code: int, text: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        if isinstance(error, signal.Signals):
            signal.raise_signal(error)
        else:
            raise error

    monkeypatch.setattr("netdepth.training.launch.launch", fail)
    assert ask("train", "baseline-mlp") == (code, "", f"netdepth: error: {text}\n")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if isinstance(error, ZeroDivisionError):
        monkeypatch.setenv("NETDEPTH_DEBUG", "1")
        with pytest.raises(ZeroDivisionError):
            main(["train", "baseline-mlp"])


def test_a_closed_pipe_is_quiet(world: World) -> None:
    command = [sys.executable, "-m", "netdepth", "list", "recipes", "-v"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
