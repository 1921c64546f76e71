"""The fingerprint of a run computed again: from its own ``config.json``, and from what its study asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from netdepth.config import Component, RunConfig, canonical_json, from_json, to_json
from netdepth.errors import NetdepthError
from netdepth.overrides import apply_overrides
from netdepth.runs import SplitRecord
from netdepth.runs.naming import differing, flat_settings
from netdepth.studies.folder import PlannedRun, StudyDocument

__all__ = ["Fingerprints"]

SHOWN = 3
"""Settings that a fault names."""


class Fingerprints:
    """Of the runs of one study; what their configs have in common is computed once."""

    def __init__(self, document: StudyDocument) -> None:
        self.document = document
        self.cells = {(cell.condition, cell.level): cell.config for cell in document.spec.cells}
        chosen = (document.tuning and document.tuning.chosen) or ()
        self.chosen = {(item.condition, item.level): item.value for item in chosen}
        self.known: dict[bytes, list[str]] = {}
        self.unknown: set[str] = set()
        """Why some could not be computed: code that is not here, or is of another version."""

    def faults(self, planned: PlannedRun, stored: Mapping[str, Any], split: SplitRecord | None) -> list[str]:
        """What is wrong with the settings in ``stored``, the ``config.json`` of a run, by its data in ``split``."""
        fields = {field.name for field in dataclasses.fields(RunConfig)}
        given = {name: value for name, value in stored.items() if name in fields and name != "seed"}
        digests = None if split is None else (split.data_digest, split.split_digest)
        try:
            key = canonical_json([planned.cell, planned.fingerprint, given, digests])
            if key not in self.known:
                self.known[key] = self._faults(planned, given, split)
            return self.known[key]
        except (NetdepthError, ValueError, TypeError) as error:
            self.unknown.add(str(error).partition(";")[0])
            return []

    def _faults(self, planned: PlannedRun, given: Mapping[str, Any], split: SplitRecord | None) -> list[str]:
        from netdepth.training.resolve import fingerprint

        if split is None:
            return ["split.json is missing"]
        made: RunConfig = _resolved(from_json(RunConfig, given, "config.json"))
        faults = []
        if (now := fingerprint(made, split)) != planned.fingerprint:
            faults.append(
                f"its config.json and split.json have the fingerprint {now}, not {planned.fingerprint}: "
                "a setting, the data or the split is another one than was trained"
            )
        asked = self._asked(planned, made)
        if asked is not None and fingerprint(asked, split) != now:
            here, there = differing([flat_settings(to_json(one)) for one in (made, asked)])
            names = [f"{name} = {here.get(name)!r}, not {there.get(name)!r}" for name in sorted({*here, *there})]
            faults.append(f"it was made with other settings than study.json asks for: {'; '.join(names[:SHOWN])}")
        return faults

    def _asked(self, planned: PlannedRun, made: RunConfig) -> RunConfig | None:
        """The config that the study asks for; the weights that it begins with or learns from are those of ``made``."""
        config = self.cells.get((planned.condition, planned.level))
        if config is None:
            return None
        value = planned.value if planned.value is not None else self.chosen.get((planned.condition, planned.level))
        if value is not None and self.document.tuning is not None:
            config, _ = apply_overrides(config, [f"{self.document.tuning.path}={value!r}"])
        if config.start_from is not None and made.start_from is not None:
            theirs = {"run": made.start_from.run, "weights": made.start_from.weights, "sha256": made.start_from.sha256}
            config = dataclasses.replace(config, start_from=dataclasses.replace(config.start_from, **theirs))  # type: ignore[arg-type]
        if "teacher" in config.objective.args:
            pinned = {k: made.objective.args[k] for k in ("teacher", "weights", "sha256") if k in made.objective.args}
            objective = Component(config.objective.name, {**config.objective.args, **pinned}, config.objective.version)
            config = dataclasses.replace(config, objective=objective)
        if config.train.precision == "auto":
            config = dataclasses.replace(
                config, train=dataclasses.replace(config.train, precision=made.train.precision)
            )
        return _resolved(config)


def _resolved(config: RunConfig) -> RunConfig:
    """``config`` with every component's defaults, and data whose labels are what its objective learns; no run is looked
    up.

    Raises:
        BadInput: a component is not here, or is of another version.
    """
    from netdepth.training.objectives import data_for_objective
    from netdepth.training.resolve import COMPONENTS

    parts: dict[str, Any] = {name: registry.resolve(getattr(config, name)) for name, registry in COMPONENTS.items()}
    config = dataclasses.replace(config, **parts)
    return dataclasses.replace(config, dataset=data_for_objective(config))
