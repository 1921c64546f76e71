"""Figures, tables and documents for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from netdepth.studies.folder import StudyDir

__all__ = ["study_report"]


def study_report(study: StudyDir) -> Path:
    """Write the report of a study into its folder and return the path of the page (`study_files.write_report`)."""
    from netdepth.report.files import write_report

    return write_report(study)
