"""The files of a study's report, written from the run folders; `netdepth.report.check` checks them later.

``report.html`` is one file without scripts, which asks the network for nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from netdepth.config import Json
from netdepth.files.atomic import storage, write_atomic
from netdepth.report import figures
from netdepth.report.content import Content, markdown, rendered, sources
from netdepth.report.data import StudyData, judge_study
from netdepth.report.numbers import Element, read_numbers
from netdepth.runs.seal import sha256_of
from netdepth.studies.folder import StudyDir

__all__ = [
    "HTML", "SOURCES_FILE", "TABLE", "VERDICT", "page", "page_faults", "table_bytes", "verdict_bytes", "write_files",
    "write_report", "write_verdict",
]  # fmt: skip

HTML, MARKDOWN, SOURCES_FILE, TABLE, VERDICT = "report.html", "report.md", "sources.json", "table.csv", "verdict.json"


def write_report(study: StudyDir) -> Path:
    """Write ``report.html``, ``report.md`` with its figures and ``sources.json``, ``table.csv`` and ``verdict.json``.

    Works on an unfinished study; the page then says what is missing. Returns the path of the page.

    Raises:
        BadInput: ``study.json`` is damaged.
        StorageError: a file cannot be written.
    """
    return write_files(judge_study(study)[0])


def write_files(data: StudyData, folder: Path | None = None) -> Path:
    """As `write_report`, for a study that is read already; into ``folder`` if one is given."""
    folder = folder or data.study.path
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    content = Content(data)
    write_verdict(data, folder)
    drawn = figures.pictures(data, folder / "figures")
    html = _encoded(page(content))
    write_atomic(folder / MARKDOWN, _encoded(markdown(content, drawn)))
    digests = {
        path.relative_to(folder).as_posix(): sha256_of(path) for path in (folder / MARKDOWN, *(p for _, p in drawn))
    }
    digests[HTML] = hashlib.sha256(html).hexdigest()
    write_atomic(folder / SOURCES_FILE, _json({**sources(content), "files": digests}))
    write_atomic(folder / HTML, html)
    return folder / HTML


def page(content: Content, drawn: bool = True) -> str:
    """``report.html``; without its figures if they are not to be ``drawn``."""
    data = content.data
    return rendered(
        "study.html",
        content=content,
        spec=data.spec,
        labels=figures.labels_of(data),
        level_figures=figures.level_group(data) if drawn else [],
        curve_figures=figures.curve_groups(data) if drawn else {},
        flow_figures=figures.flow_groups(data) if drawn else {},
        bands=figures.band_names(),
        titles={**content.titles, "against": f"Error and loss {figures.against(data)}"},
        **content.tables,
    )


def write_verdict(data: StudyData, folder: Path | None = None) -> None:
    """Write ``table.csv`` and, once a run has begun, ``verdict.json``; beside the runs or into ``folder``."""
    folder = folder or data.study.path
    write_atomic(folder / TABLE, table_bytes(data))
    if (verdict := verdict_bytes(data)) is not None:
        write_atomic(folder / VERDICT, verdict)


def table_bytes(data: StudyData) -> bytes:
    """``table.csv``."""
    return _encoded(data.table.to_csv(index=False, lineterminator="\n"))


def verdict_bytes(data: StudyData) -> bytes | None:
    """``verdict.json``, None while no run has begun."""
    return None if (found := data.verdict_json()) is None else _json(found)


def page_faults(data: StudyData, path: Path) -> list[str]:
    """Where the numbers of the page at ``path`` are not what the run folders give; its figures are not drawn again."""
    there = [number for number in read_numbers(path.read_text(errors="replace")) if number.tag != "figure"]
    now = read_numbers(page(Content(data), drawn=False))
    changed = [pair for pair in zip(there, now, strict=False) if pair[0] != pair[1]]
    found = [f"the page says {_said(old)} where the runs now give {_said(new)}" for old, new in changed[:5]]
    if len(changed) > 5:
        found.append(f"and {len(changed) - 5} more numbers differ")
    if len(there) != len(now):
        found.append(f"the page has {len(there)} numbers where the runs now give {len(now)}")
    return found


def _said(number: Element) -> str:
    text = " ".join(number.text.split())
    return repr(text if len(text) <= 40 else f"{text[:39]}…")


def _encoded(text: str) -> bytes:
    """``text`` as UTF-8; half a character, such as the name of a file in another encoding leaves, is escaped."""
    return text.encode(errors="backslashreplace")


def _json(value: Mapping[str, Json]) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"
