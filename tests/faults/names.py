"""Names as an attacker would give them: to a run, a study, a class, a file, a question."""

from __future__ import annotations

import random
from collections.abc import Iterator

HOST = "evil.test"
TAKEN = "data-taken"
"""The attribute that a script sets on the page's root where one is executed."""

CODE = f"document.documentElement.setAttribute('{TAKEN}','1');new Image().src='http://{HOST}/script'"

MARKUP = [
    f"<script>{CODE}</script>",
    f"</title><script>{CODE}</script>",
    f"</style><script>{CODE}</script>",
    f"</textarea></svg></text><script>{CODE}</script>",
    f"]]><script>{CODE}</script>",
    f"--><script>{CODE}</script>",
    f'"><img src=http://{HOST}/img onerror="{CODE}">',
    f"'><img src=x onerror=\"{CODE}\">",
    f"<svg onload=\"{CODE}\">",
    f"<svg><animate onbegin=\"{CODE}\" attributeName=x>",
    f'" autofocus tabindex=1 onfocus="{CODE}" x="',
    f"' style='background:url(http://{HOST}/style)' onmouseover='{CODE}",
    f"<iframe src=http://{HOST}/frame></iframe>",
    f"<link rel=stylesheet href=http://{HOST}/sheet>",
    f"<meta http-equiv=refresh content='0;url=http://{HOST}/refresh'>",
    f"<base href=http://{HOST}/>",
    f"<object data=http://{HOST}/object></object>",
    f"<form action=http://{HOST}/form><input autofocus></form>",
    f"<a href=\"javascript:{CODE}\">here</a>",
    f"![x](http://{HOST}/markdown) [y](javascript:{CODE})",
    f"@import url(http://{HOST}/import);",
    "{{ 7 * 7 }} {% include '/etc/passwd' %} ${7*7} #{7*7} <%= 7 %>",
    "&lt;script&gt;&#60;script&#62;&amp;",
    "<!-- never closed",
]  # fmt: skip
TERMINAL = [
    "\x1b[31mred\x1b[0m", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1b]8;;http://evil.test\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31m", "\x90q\x9c", "\x07", "\b\b\b\b", "\rnetdepth: all is well", "one\nnetdepth: error: two", "\x0b\x0c\x85",
    "\u2028\u2029", "\u202egnp.exe\u202c", "\u2066\u2069", "\u200b\u200d\ufeff", "[red]markup[/red] [link=x]y[/link]",
    ":warning: :boom:", "\x00", "a\x00b", "\ud800", "\udcff", "e\u0301\u0336" * 40,
]  # fmt: skip
PATHS = [
    "..", ".", "../../../escaped", "/escaped", "a/../../escaped", "a/b/c", "a\\..\\..\\escaped", "C:\\escaped",
    "\\\\host\\share", "~", "~root", "%2e%2e%2fescaped", "CON", "NUL.txt", ".lock", ".hidden", "study.json", "single",
    "tuning", "-rf", "--help", "*", "?", "$(touch escaped)", "`touch escaped`", ";touch escaped", "|touch escaped",
    "a" * 300, "é" * 200, "💥" * 90, "x" * 5000, " ", "", "\t", "=cmd|' /C calc'!A0",
]  # fmt: skip


def names(count: int, seed: int = 12) -> Iterator[str]:
    """``count`` of them: first each as it is, then joined at random."""
    plain = [*MARKUP, *TERMINAL, *PATHS]
    yield from plain[:count]
    rng = random.Random(seed)
    for _ in range(count - len(plain)):
        yield "".join(rng.choice(rng.choice((MARKUP, TERMINAL, PATHS))) for _ in range(rng.randint(2, 3)))
