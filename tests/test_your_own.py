"""The file on the page docs/your-own.md: it is checked, trained and planned as a reader would."""

import re
from pathlib import Path

import pytest

from netdepth import cli
from netdepth.runs.folder import list_runs, runs_root

PAGE = Path(__file__).parents[1] / "docs" / "your-own.md"


@pytest.fixture
def my_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """``my.py`` as it stands on the page, in the working folder, beside ``asks.py``."""
    for name, code in re.findall(r"<!-- (\w+\.py) -->\n\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    return "my.py"


@pytest.mark.slow
def test_the_page_is_checked_trained_and_planned(my_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", my_file]) == 0
    assert "FAILED" not in capsys.readouterr().out
    assert cli.main(["train", "my-run", "--import", my_file, "--track", "none", "--set", "train.budget=1ep"]) == 0
    shown = capsys.readouterr().out
    assert "Minimised: focal gamma=1" in shown
    (run,) = list_runs(runs_root())
    config, result = run.read_json("config.json"), run.result()
    names = [config[part]["name"] for part in ("model", "optimizer", "schedule")]
    assert names == ["my-net", "rmsprop", "inverse-root"]
    assert result["depth"] == 3
    assert result["test"]["last"]["top_2"] > result["test"]["last"]["accuracy"] > 0.3
    assert cli.main(["study", "my-study", "--import", my_file, "--dry-run"]) == 0
    assert "30 runs" in capsys.readouterr().out


def test_the_studies_of_width_and_of_optimizers_are_planned(
    my_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--seeds", "2", "--set", "train.budget=2it", "--dry-run"]
    assert cli.main(["study", "asks.py:width", *arguments, "--levels", "4,32"]) == 0
    shown = capsys.readouterr().out
    assert "12 runs" not in shown
    assert "8 runs" in shown
    assert re.search(r"^study +residual +32 +2 ", shown, re.MULTILINE)
    assert cli.main(["study", "asks.py:optimizers", *arguments, "--levels", "adam,sgd"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^tuning 0.1 +sgd +2 ", shown, re.MULTILINE)
    assert "adamw" not in shown
    assert cli.main(["study", "asks.py:optimizers", "--depths", "2", "--dry-run"]) == 2
    assert "compares levels of 'optimizer'; use --levels" in capsys.readouterr().err
