"""Values instead of classes: metrics as scikit-learn's, runs from arrays and tables, what is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from sklearn.dummy import DummyRegressor
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

import netdepth as nd
from netdepth.cli import main
from netdepth.config import Component, RunConfig, Runtime
from netdepth.errors import BadInput
from netdepth.runs.compare import compare, mcnemar_of_runs, predictions_of
from netdepth.training.regression import Regression, constant_loss, value_metrics

DRAW = np.random.default_rng(0)
BRIGHT = DRAW.random((240, 2))
X = (DRAW.integers(0, 256, (240, 6, 6)) * np.repeat(BRIGHT, 3, 1)[:, :, None]).astype(np.uint8)
Y = BRIGHT @ [[1.0, 2.0], [3.0, -1.0]] + 0.5
"""Two values of a picture whose upper and lower halves are more or less bright."""

SMALL = ["model.hidden=[12]", "train.budget=8ep", "train.batch_size=16", "optimizer.lr=0.01"]


def trained(root: Path, dataset: Component | str, *more: str, **options: Any) -> Any:
    runtime = Runtime(runs_root=root, trackers=(), probes=bool(options.pop("probes", False)))
    return nd.train(
        "baseline-mlp", dataset=dataset, overrides=[*SMALL, *more], runtime=runtime, progress=False, **options
    )


@pytest.mark.parametrize("count", [1, 3])
def test_metrics_equal_scikit_learns(count: int) -> None:
    targets = DRAW.normal(5, 3, (200, count))
    outputs = targets + DRAW.normal(0, 1, (200, count))
    found = value_metrics(torch.tensor(outputs), torch.tensor(targets))
    assert found["mse"] == pytest.approx(mean_squared_error(targets, outputs), rel=1e-12)
    assert found["mae"] == pytest.approx(mean_absolute_error(targets, outputs), rel=1e-12)
    assert found["r2"] == pytest.approx(r2_score(targets, outputs), rel=1e-12)
    for name, strategy, error in (("mse", "mean", mean_squared_error), ("mae", "median", mean_absolute_error)):
        guess = DummyRegressor(strategy=strategy).fit(targets, targets).predict(targets)
        objective = Regression(name)  # type: ignore[arg-type]
        assert constant_loss(objective, torch.tensor(targets)) == pytest.approx(error(targets, guess), rel=1e-12)


def test_r2_of_values_that_are_all_the_same_is_scikit_learns() -> None:
    same = torch.full((4, 1), 3.0)
    assert value_metrics(same, same)["r2"] == r2_score(same.numpy(), same.numpy()) == 1
    assert value_metrics(same + 1, same)["r2"] == r2_score(same.numpy(), same.numpy() + 1) == 0
    assert np.isnan(value_metrics(same[:1], same[:1])["r2"])


def test_a_run_from_arrays_in_memory(tmp_path: Path) -> None:
    run = trained(tmp_path, nd.dataset(X, Y), "objective=mse", probes=True)
    result, split = run.result, run.dir.split()
    assert list(result["test"]["best"]) == ["loss", "mse", "mae", "r2"]
    assert result["confusion"] is None
    assert result["train"]["last"]["loss"] < 0.3 * split.constant_loss
    assert split.targets == run.targets == ("target 1", "target 2")
    assert run.classes == ()
    predictions, targets = predictions_of(run.dir)
    test = result["test"][result["reported"]]
    assert test["r2"] == pytest.approx(r2_score(targets, predictions), rel=1e-6)
    assert test["mae"] == pytest.approx(mean_absolute_error(targets, predictions), rel=1e-6)
    assert test["loss"] == pytest.approx(mean_squared_error(targets, predictions), rel=1e-6)
    record = run.dir.read_metrics()[-1]
    assert "train_accuracy" not in record
    assert record["val_loss"] == pytest.approx(record["val_mse"])
    assert record["gap"] == pytest.approx(record["val_loss"] - record["train_loss"])
    assert run.dir.read_json("config.json")["dataset"]["args"]["targets"] == "values"
    kept = run.dir.read_json("probes/init.json")
    assert kept["constant_loss"] == pytest.approx(split.constant_loss, rel=0.2)
    assert run.model()(torch.tensor(X[:3, None])).shape == (3, 2)
    assert trained(tmp_path, nd.dataset(X, Y), "objective=mse").path == run.path, "asked again it is the same run"
    settings = {key: value for key, value in run.config.items() if key in RunConfig.__dataclass_fields__}
    again = trained(tmp_path / "b", nd.dataset(X, Y), "objective=mse")
    assert again.result["weights_sha256"] == result["weights_sha256"], "the same seed gives the same bits"
    assert settings["objective"]["name"] == "mse"


def test_the_objective_decides_whether_whole_numbers_are_classes_or_values(tmp_path: Path) -> None:
    whole = nd.dataset(X, np.arange(240) % 4)
    classes, values = trained(tmp_path, whole), trained(tmp_path, whole, "objective=mae")
    assert classes.classes == ("0", "1", "2", "3")
    assert "accuracy" in classes.result["test"]["best"]
    assert (values.targets, values.classes) == (("target",), ())
    assert values.result["test"]["best"]["loss"] == pytest.approx(values.result["test"]["best"]["mae"])
    assert "targets" not in classes.dir.read_json("split.json")
    assert classes.dir.read_json("config.json")["dataset"]["args"]["targets"] is None


def test_early_stopping_and_overfitting_watch_the_validation_loss(tmp_path: Path) -> None:
    noise = nd.dataset(X, DRAW.normal(size=240), val_size=40)
    stop = ["train.early_stopping.patience=2", "train.overfitting.patience=2", "train.budget=40ep"]
    run = trained(tmp_path, noise, "objective=mse", *stop)
    losses = [record["val_loss"] for record in run.dir.read_metrics()]
    assert run.result["status"] == "stopped_early"
    assert run.result["best_epoch"] == 1 + int(np.argmin(losses))
    assert run.result["overfit_onset_epoch"] is not None


def test_tables_and_files_of_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pandas.DataFrame(X.reshape(240, -1), columns=[f"pixel{index}" for index in range(36)])
    frame.assign(age=Y[:, 0], height=Y[:, 1]).to_csv(tmp_path / "a.csv", index=False)
    np.savez(tmp_path / "a.npz", x=X, y=Y[:, 0])
    options = [*(f"--set={text}" for text in SMALL), f"--runs={tmp_path / 'runs'}", "--track=none"]
    one = ["--set=dataset.label=age", '--set=dataset.drop=["height"]']
    table = f"--dataset=csv:{tmp_path / 'a.csv'}"
    assert main(["train", "baseline-mlp", table, "--set=objective=mse", *one, *options]) == 0
    shown = capsys.readouterr()
    assert "R²     MAE     MSE" in shown.out
    assert "Minimised: mse; that is the loss here; the best constant answer has " in shown.out
    assert "drawn at random" in shown.out
    assert " · R² " in shown.err
    assert "accuracy" not in shown.out + shown.err
    both = '--set=dataset.label=["age","height"]'
    assert main(["train", "baseline-mlp", table, "--set=objective=mae", both, *options]) == 0
    arrays = f"--dataset=arrays:{tmp_path / 'a.npz'}"
    assert main(["train", "baseline-mlp", arrays, "--set=objective=mse", "--seeds=2", *options]) == 0
    shown = capsys.readouterr()
    assert "test R²" in shown.out
    runs = [nd.load(path.name, tmp_path / "runs").dir for path in (tmp_path / "runs" / "single").glob("*-*-s*")]
    names = {run.split().targets for run in runs}  # type: ignore[union-attr]
    assert names == {("age",), ("age", "height"), ("target",)}
    compared = compare(runs)
    assert [quantity.key for quantity in compared.quantities][:3] == ["test_r2", "test_mae", "test_mse"]
    assert any("minimised different losses (mae and mse)" in warning for warning in compared.warnings)
    with pytest.raises(BadInput, match="McNemar's test is of right and wrong answers"):
        mcnemar_of_runs(*runs[:2])
    assert main(["runs", "list", f"--runs={tmp_path / 'runs'}"]) == 0


def test_an_objective_of_ones_own_learns_values(tmp_path: Path) -> None:
    @nd.OBJECTIVES.register("test-huber")
    class Huber:
        targets = "values"

        def __init__(self, delta: float = 1.0) -> None:
            self.delta = delta

        def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.huber_loss(outputs, targets.to(outputs.dtype), delta=self.delta)

    run = trained(tmp_path, nd.dataset(X, Y), "objective=test-huber", "objective.delta=0.5")
    test = run.result["test"]["last"]
    assert test["loss"] < 0.5 * test["mae"]
    assert run.dir.split().constant_loss > run.result["train"]["last"]["loss"]


@pytest.mark.parametrize(
    ("labels", "settings", "words"),
    [
        (Y[:, 0], [], "labels are classes: whole numbers or texts; numbers to be met instead take objective=mse"),
        (np.array(["cat", "dog"] * 120), ["objective=mse"], "has the label 'cat', which is no number"),
        (Y[:, 0], ["dataset.targets=values"], "objective 'cross-entropy' learns classes; take objective mse or mae"),
        (Y[:, 0], ["objective=mse", "dataset.targets=classes"], "objective 'mse' learns values; take another"),
        (Y, ["objective=mse", 'dataset.names=["a"]'], "dataset.names has 1 names, x of "),
        (
            Y,
            ["objective=mse", "train.early_stopping.monitor=val_accuracy"],
            "objective 'mse' learns values, which have no accuracy",
        ),
        (Y, ["objective=mse", "schedule=paper-warmup"], "follows the training error"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(
    labels: np.ndarray, settings: list[str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput) as caught:
        trained(tmp_path, nd.dataset(X, labels), *settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "single").exists()


def test_arrays_that_are_neither_classes_nor_values_are_refused_at_once() -> None:
    for labels, options, words in (
        (np.where(Y > 1, np.nan, Y), {}, "not one-hot"),
        (np.where(Y > 1, np.nan, Y), {"targets": "values"}, "has the value nan; values are finite"),
        (Y[:, 0] * 1e300, {"targets": "values"}, "values are finite float32 numbers"),
        (Y, {"targets": "classes"}, "not one-hot"),
        (Y, {"targets": "both"}, "it takes 'classes', 'values' or None"),
    ):
        with pytest.raises(BadInput) as caught:
            nd.dataset(X, labels, **options)
        assert words in str(caught.value)


def test_a_data_set_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="objective 'mse' learns values, and mnist has classes"):
        trained(tmp_path, "mnist", "objective=mse")
