"""Text for people: names made harmless, and one form for numbers, p-values, intervals, counts and lists."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from netdepth import text
from netdepth.text import print_table

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ([text.percent(0.97391), text.percent(None), text.percent(NAN)], ["97.39 %", "-", "nan %"]),
        ([text.percent(0.5, 0), text.percent(-0.01, sign=True), text.points(0.012)], ["50 %", "−1.00 %", "+1.20"]),
        (list(map(text.number, [0.1053, 1e-7, INF, None, -2.5])), ["0.1053", "1e-07", "inf", "-", "−2.5000"]),
        (list(map(text.significant, [0.5, 100.0, 1e-7, NAN, None])), ["0.500", "100", "1.00e-07", "not finite", "-"]),
        (list(map(text.compact, [3e-9, 1.04e16, 0.214, 0.0, 3842.0, 99.9, 12345.0, NAN, INF, None])),
         ["3e-9", "1e16", "0.21", "0", "3842", "1e2", "1.2e4", "nan", "inf", "-"]),
        ([text.compact(1744.2, 4), text.compact(1e10, 4), text.compact(2.30258, 4)], ["1744", "1e10", "2.303"]),
        ([text.significant(0.5, sign=True), text.significant(-12.345)], ["+0.500", "−12.3"]),
        ([text.interval(-0.1, 0.2), text.interval(None, 0.2), text.interval(0.1, 0.2, text.percent)],
         ["[−0.100, 0.200]", "", "[10.00 %, 20.00 %]"]),
        ([text.p_value(0.0123), text.p_value(1e-5), text.p_value(None)], ["0.012", "< 0.0001", "-"]),
        ([text.p_equals(0.0123), text.p_equals(1e-5)], ["p = 0.012", "p < 0.0001"]),
        ([text.count(1, "run"), text.count(5000, "run"), text.count(0, "seed")], ["1 run", "5,000 runs", "0 seeds"]),
        ([text.size(812), text.size(1_400_000), text.size(3 * 10**13)], ["812 B", "1.4 MB", "30.0 TB"]),
        (list(map(text.duration, [0.04, 9.4, 40, 99, 100, 720, 12_000])),
         ["0.0 s", "9.4 s", "40 s", "99 s", "2 min", "12 min", "3 h 20 min"]),
        ([text.listed([8]), text.listed([8, 16]), text.listed(["a", "b", "c"], "or")], ["8", "8 and 16", "a, b or c"]),
        ([text.capitalised("depth 8"), text.capitalised("")], ["Depth 8", ""]),
        ([text.printable("a\nb\t\x1b[0m\u202e\udcff")], ["a\\nb\\t\\x1b[0m\\u202e\\udcff"]),
    ],
)  # fmt: skip
def test_what_a_person_sees(shown: list[str], expected: list[str]) -> None:
    assert shown == expected


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


HEADER = ("run", "status", "test accuracy", "worst class", "meaning")
ROWS = [["baseline-mlp-s0", "completed", "97.86 ± 0.09 %", "94.1 % (9)", "a network of three layers " * 2]] * 2


def printed(width: int, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    print_table(HEADER, ROWS, right=(2, 3), stream=out, **settings)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()


@pytest.mark.parametrize("width", [48, 60, 80])
def test_a_table_on_a_terminal_fits_and_breaks_no_word(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for spare in ((), (3, 1), (4, 3, 1)):
        lines = printed(width, monkeypatch, spare=spare, title="Runs")
        assert max(map(len, lines)) <= width
        words = set(" ".join(lines).split())
        assert {"baseline-mlp-s0", "97.86"} <= words
        told = " ".join(" ".join(lines).split()).partition("left out, as the terminal is narrow: ")
        for index, name in enumerate(HEADER):
            there = set(ROWS[0][index].split()) <= set(told[0].split())
            assert there != (name in told[2]), "every column is shown whole or named"
        assert any("97.86 ± 0.09 %" in line for line in lines), "a number keeps its unit on its line"


def test_columns_that_may_not_be_left_out_follow_below(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(40, monkeypatch)
    assert sum("baseline-mlp-s0" in line for line in lines) == 2 * 4, "the first column stands beside all others"
    assert max(map(len, lines)) <= 40
    assert max(map(len, printed(8, monkeypatch))) <= 8, "here words are broken"


def test_a_table_in_a_pipe_is_plain_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = io.StringIO()
    print_table(("name", "loss"), [["a\x1b[1m", "0.25"], ["long name", "10.5"]], right=(1,), title="Runs", ruled=(0,),
                spare=(1,), stream=out)  # fmt: skip
    assert out.getvalue().splitlines() == [
        "Runs", "", "name       loss", "---------  ----", "a\\x1b[1m   0.25", "", "long name  10.5", "",
    ]  # fmt: skip


def test_a_negative_zero_has_no_minus() -> None:
    assert (text.significant(-0.0), text.significant(-0.0, sign=True)) == ("0.00", "+0.00")
