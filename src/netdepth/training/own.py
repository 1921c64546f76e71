"""Components of the user's own in a run: where they come from stands in ``environment.json``, and whoever opens the
run later finds them by that.

A run folder may be somebody else's, so a file that it names is run only if its content, with its neighbours, is what
the run was made with, and this account has trained with the same content before.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from netdepth.config import RunConfig
from netdepth.errors import BadInput
from netdepth.files.usercode import import_user, remember, was_trained_here
from netdepth.owncode import digest_of, files_of
from netdepth.ownvalues import refuse_others
from netdepth.registry import REGISTRIES, registry_of
from netdepth.runs import OwnPart
from netdepth.runs.folder import RunDir

__all__ = ["find_own", "own_parts", "unlike_before"]

KINDS = tuple(field.name for field in dataclasses.fields(RunConfig) if field.name in REGISTRIES)


def own_parts(config: RunConfig) -> tuple[OwnPart, ...] | None:
    """The parts of ``config`` that are the user's own, as ``environment.json`` has them; None if there are none.

    It is called by whoever trains, so their files are those that this account has trained with.
    """
    found = []
    for kind in KINDS:
        name = getattr(config, kind).name
        origin = registry_of(kind).entry(name).origin
        if origin is not None and origin.file is not None:
            found.append(OwnPart(kind, name, origin.importable, origin.content, origin.values))
            remember(_trusted_as(found[-1]))
        elif origin is not None and origin.typed is not None:
            found.append(OwnPart(kind, name, None, origin.source))
    return tuple(found) or None


def unlike_before(config: RunConfig) -> list[str]:
    """See to it that no earlier run is taken for one of ``config`` if a part of it has no source to be known by; a line
    for each such part."""
    lines = []
    for kind in KINDS:
        name = getattr(config, kind).name
        origin = registry_of(kind).entry(name).origin
        if origin is not None and (unknown := origin.unlike_before()):
            lines.append(
                f"{kind} {name!r} has no file, and not all of its source can be read ({unknown}), so no earlier run of "
                "it is used again; put it into a file to have its runs found"
            )
    return lines


def find_own(run: RunDir, *kinds: str) -> None:
    """Register the components of these ``kinds``, or of all, of ``run`` again, if they are the user's own: from the
    files that the run names.

    Raises:
        BadInput: it is gone, altered, never run from here, or another one has its name.
    """
    config = run.read_json("config.json") or {}
    asked = [(kind, config[kind].get("name")) for kind in kinds or KINDS if isinstance(config.get(kind), dict)]
    if all(name in registry_of(kind).names() and registry_of(kind).entry(name).origin is None for kind, name in asked):
        return  # all are netdepth's: nothing else of the folder is needed
    environment = run.environment()
    for part in (environment and environment.own) or ():
        if (part.kind, part.name) in asked:
            _find(part, f"{part.kind} {part.name!r} of run {run.path.name}")


def _find(part: OwnPart, what: str) -> None:
    """Register ``part`` again, which a message calls ``what``; raises as `find_own`."""
    registry, file = registry_of(part.kind), part.file
    there = part.name in registry.names()
    origin = registry.entry(part.name).origin if there else None
    if origin is not None and part.sha256 in (origin.content or origin.source, origin.source):
        refuse_others(what, part.values, origin.values)
        return
    if file is None:
        state = "another one is registered now" if there else "it is not registered here"
        raise BadInput(f"{what} was typed into a notebook or at a prompt, and {state}; run its cell as it was")
    what += f" comes from {file}"
    if file.endswith(".py"):
        try:
            _refuse_another(part, digest_of(files_of(Path(file))), what)
        except (OSError, ValueError):
            raise BadInput(f"{what}, which is gone; put it back, or say where it is: --import FILE.py") from None
    if not was_trained_here(_trusted_as(part)):
        raise BadInput(
            f"{what}, with which this account has trained nothing yet; look at it, and if you trust it: --import {file}"
        )
    import_user(file)
    made = registry.entry(part.name).origin
    _refuse_another(part, "" if made is None else made.content, what)
    refuse_others(what, part.values, {} if made is None else made.values)


def _trusted_as(part: OwnPart) -> str:
    return part.sha256 if part.file is not None and part.file.endswith(".py") else f"module {part.file}"


def _refuse_another(part: OwnPart, now: str, what: str) -> None:
    if now != part.sha256:
        raise BadInput(
            f"{what}, which was altered since (or a file that it imports): {part.sha256[:10]} then, {now[:10]} now; "
            "put it back as it was, or name a copy of that: --import FILE.py"
        )
