"""benchmarks/first_hour: what counts as a command and as a line, every row's files, the table; nothing is trained."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "first_hour"
MODULES = ("counting", "goals", "table")


@pytest.fixture(scope="module")
def hour():
    """The modules of the benchmark by name, whose imports leave nothing behind."""
    path, before = list(sys.path), {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path[:] = path
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(before)


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("netdepth train baseline-mlp --seeds 5", 1),
        ("cd work && python train.py; ls", 3),
        ("ls runs | sort | head -1", 3),
        ("for seed in 0 1 2; do python train.py fit --seed $seed; done", 1),
        ("netdepth board --port $PORT &", 1),
        ("python -c 'print(1); print(2)'", 1),
    ],
)
def test_a_command_is_what_a_separator_ends(hour, line, count):
    assert hour["counting"].typed(line) == count


def test_a_list_is_read_with_what_is_to_be_killed_and_what_stays(hour):
    read = hour["counting"].read_commands("# for the reader\n\n# killed when: runs/*/last\nfit\nfit\nboard &\n")
    assert [(one.line, one.killed_when, one.stays) for one in read] == [
        ("fit", "runs/*/last", False),
        ("fit", None, False),
        ("board &", None, True),
    ]


def test_lines_that_are_added_or_changed_count_and_blank_ones_and_comments_do_not(hour):
    before = {"train.py": "import torch\n\nlr = 1  # typed\nepochs = 3\n"}
    assert hour["counting"].own_lines(before, {}) == 3
    after = {"train.py": "import torch\n# faster\nlr = 2\nprint(lr)\n", "more.py": "x = 1\n"}
    assert hour["counting"].own_lines(after, before) == 3
    assert hour["counting"].own_lines(before, before) == 0


def test_every_row_has_both_sides_and_files_that_can_be_counted(hour, tmp_path):
    names = [row.name for row in hour["goals"].ROWS]
    assert sorted(path.name for path in (FOLDER / "rows").iterdir()) == sorted(names)
    for name in names:
        for side in hour["goals"].SIDES:
            folder = FOLDER / "rows" / name / side
            hour["counting"].read_commands((folder / "commands.txt").read_text())
            hour["counting"].read_files(folder)
    (tmp_path / "page.html").touch()
    with pytest.raises(ValueError, match=r"page\.html is no file of counted lines; these are: \.py"):
        hour["counting"].read_files(tmp_path)


def side(commands, lines, seconds, reached=True):
    return {"commands": commands, "lines": lines, "seconds": seconds, "reached": reached, "found": "here"}


@pytest.mark.parametrize(
    ("netdepth", "lightning", "said"),
    [
        (side(1, 0, 5.0), side(1, 50, 9.0), "ahead in lines, seconds"),
        (side(1, 0, 5.0), side(1, 0, 5.2), "even"),
        (side(2, 0, 5.0), side(1, 9, 9.0), "**behind** in commands"),
        (side(1, 0, 6.0), side(1, 0, 5.0), "**behind** in seconds"),
        (side(1, 0, 5.0), side(1, 0, 5.0, reached=False), "ahead in what is reached"),
        (side(1, 0, 5.0, reached=False), side(1, 0, 5.0), "**not reached**"),
    ],
)
def test_a_row_says_where_netdepth_stands(hour, netdepth, lightning, said):
    assert hour["table"].standing(netdepth, lightning) == said
    document = {"rows": {"resume": {"netdepth": netdepth, "lightning": lightning, "load": 0.1}}, "system": "Linux"}
    assert f"| {said} |" in hour["table"].render(document)
