"""``netdepth train`` and ``quickstart``: what they pass on and what they answer; a stand-in does the training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.cli_world import Ask, World

from netdepth.errors import StorageError


def test_train_passes_on_what_was_asked_and_shows_the_table(ask: Ask, world: World) -> None:
    options = ["--seed", "3", "--dataset", "mnist5k", "--set", "train.budget=2ep", "--set", "model.hidden=[5]"]
    where = ["--device", "cpu", "--threads", "2", "--track", "none", "--data", "d", "--runs", "r", "--fresh"]
    code, out, err = ask("train", "baseline-mlp", *options, *where)
    assert (code, err) == (0, "")
    ((name, (config,), runtime),) = world.launched
    assert (name, config.seed, config.dataset.name, config.train.budget) == ("baseline-mlp", 3, "mnist5k", "2ep")
    assert config.model.args["hidden"] == [5]
    assert (runtime.device, runtime.threads, runtime.trackers, runtime.fresh) == ("cpu", 2, (), True)
    assert (runtime.data_dir, runtime.runs_root) == (Path("d"), Path("r"))
    assert "Stopped early at epoch 4; best at 2; overfitting since epoch 3." in out
    assert all(expected in out for expected in ("validation", "97.00 %", "0.0800"))
    assert Path(out.rpartition("learning curves: ")[2].strip()).is_file()


def test_trackers_and_a_replaced_component_which_says_what_it_drops(ask: Ask, world: World) -> None:
    note = "note: optimizer adam -> sgd: dropped lr=0.001\n"
    assert ask("train", "baseline-mlp", "--set", "optimizer=sgd")[::2] == (0, note)
    assert ask("train", "baseline-mlp", "--track", "tensorboard,wandb,wandb", "--wandb-online")[0] == 0
    trackers = [(runtime.trackers, runtime.wandb_online) for _, _, runtime in world.launched]
    assert trackers == [(("tensorboard",), False), (("tensorboard", "wandb"), True)]


def test_a_file_and_a_saved_config_keep_their_own_seed(ask: Ask, world: World) -> None:
    assert ask("train", "my.py:tiny")[0] == 0
    assert ask("train", "config.json")[0] == 0
    assert ask("train", "config.json", "--seed", "0")[0] == 0
    assert [(name, configs[0].seed) for name, configs, _ in world.launched] == [
        ("tiny", 7),
        ("baseline-mlp", 1),
        ("baseline-mlp", 0),
    ]


def test_seeds_end_with_the_comparison_and_the_overlay(ask: Ask, world: World) -> None:
    (world.folder / "loud.py").write_text("print('hello from user code')")
    command = ["train", "baseline-mlp", "--seeds", "0,3,7"]
    code, out, _ = ask(*command)
    assert code == 0
    assert [config.seed for config in world.launched[0][1]] == [0, 3, 7]
    assert "n = 3 of 3 runs" in out
    assert "picture.png" in out
    code, out, err = ask(*command, "--json", "--import", "loud.py")
    document = json.loads(out)
    assert (code, "hello from user code" in err) == (0, True)
    assert [run["seed"] for run in document["runs"]] == [0, 3, 7]
    assert document["runs"][0]["result"]["test"]["best"]["accuracy"] == 0.97
    assert document["comparison"]["groups"][0]["estimates"]["test_accuracy"]["n"] == 3
    assert Path(document["figure"]).is_file()


def test_one_failure_has_its_own_code_and_one_of_several_is_1(ask: Ask, world: World) -> None:
    world.failing = {0: ("no space left", 74)}
    code, out, err = ask("train", "baseline-mlp")
    assert (code, out, err) == (74, "", "netdepth: error: seed 0: no space left\n")
    code, out, err = ask("train", "baseline-mlp", "--seeds", "3")
    assert code == 1
    assert "n = 2 of 2 runs" in out
    assert "1 of 3 seeds failed" in out
    assert err == "netdepth: error: seed 0: no space left\n"


def test_a_diverged_run_is_a_result_and_a_figure_that_cannot_be_drawn_a_note(
    ask: Ask, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run: Any) -> Path:
        raise StorageError("cannot write figures: No space left on device")

    monkeypatch.setattr("netdepth.report.learning_curves.learning_curves", refuse)
    world.status = "diverged"
    code, out, err = ask("train", "baseline-mlp")
    assert code == 0
    assert "warning: seed 0 diverged" in err
    assert "Diverged" in out
    assert "note: no figure: cannot write figures" in out


def test_quickstart_needs_no_download_and_no_tracker(ask: Ask, world: World) -> None:
    code, out, _ = ask("quickstart")
    ((name, (config,), runtime),) = world.launched
    assert (name, config.dataset.name, runtime.trackers) == ("baseline-mlp", "mnist5k", ())
    ((spec, runtime),) = world.studies
    assert (spec.base.dataset.name, spec.levels, len(spec.seeds)) == ("mnist5k", ("2", "4", "8", "16", "32"), 7)
    assert [(p.family, int(p.level), p.against) for p in spec.primary] == [("shortcut", 32, "plain he")]
    assert code == 0
    assert "97.00 % of 1,000 digits" in out
    assert "netdepth train baseline-mlp" in out
    world.failing[0] = "no space", 74
    assert ask("quickstart")[0] == 74
    assert len(world.studies) == 1, "a baseline that failed is the end"
