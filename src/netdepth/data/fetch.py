"""Official files: looked for on this machine, else downloaded, and always verified by digest.

    DIR/<dataset>/<official file name>      DIR is --data, then $NETDEPTH_DATA, then the user cache

The digest is that of the decompressed content: two distributors may compress alike data
differently. That of an archive is taken of the file as it is, so that nothing unverified is
unpacked. ``NETDEPTH_MIRROR=URL`` makes downloads come from ``URL/<dataset>/<file>`` alone.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from netdepth.data import archive, idx
from netdepth.data.transfer import Progress, Refused, transfer
from netdepth.errors import BadInput, StorageError
from netdepth.files.atomic import storage
from netdepth.progress import DownloadProgress

__all__ = ["SOURCES", "OfficialFile", "Source", "locate", "obtain", "publish", "unpacked", "user_cache", "verified"]

STALL_SECONDS = 20.0
"""A mirror that sends nothing for so long is given up."""


@dataclass(frozen=True)
class OfficialFile:
    """A file of a data set; ``sha256`` and ``size`` (bytes) are those of its decompressed content,
    or of the file as it is if it is an ``archive``. ``alternatives`` hold the same data in another
    form: any one of them can lie in this file's place, and is downloaded where this one cannot be."""

    name: str
    sha256: str
    size: int
    archive: bool = False
    alternatives: tuple[OfficialFile, ...] = ()

    @property
    def forms(self) -> tuple[OfficialFile, ...]:
        """This file and its alternatives, the preferred one first."""
        return (self, *self.alternatives)

    @property
    def file_names(self) -> tuple[str, ...]:
        """The names it may lie under: an archive only under its own."""
        return (self.name,) if self.archive else (self.name, self.name.removesuffix(".gz"))

    @property
    def measured(self) -> str:
        """What the digest is of."""
        return "of the archive as it is" if self.archive else "of the decompressed content"

    def lying_at(self, path: Path) -> OfficialFile:
        """Which of `forms` the local file ``path`` is by its name."""
        return next((form for form in self.forms if path.name in form.file_names), self)


@dataclass(frozen=True)
class Source:
    """Where a data set comes from. ``sizes`` counts train, val and test at the default settings;
    ``mirrors`` are base addresses of the files; without ``files`` the data come with a package.
    ``folders`` are those that the archive holds: unpacked, they are accepted in its place."""

    name: str
    title: str
    sizes: dict[str, int]
    licence: str
    origin: str
    files: tuple[OfficialFile, ...] = ()
    mirrors: tuple[str, ...] = field(default=(), repr=False)
    folders: tuple[str, ...] = ()


SOURCES: dict[str, Source] = {}
"""What is known of each built-in data set without loading it."""


def publish(source: Source) -> Source:
    """Enter ``source`` in `SOURCES`, for `netdepth data list | fetch | verify`."""
    SOURCES[source.name] = source
    return source


def user_cache() -> Path:
    """The folder that downloads go to (``~/.cache/netdepth`` on Linux)."""
    import pooch

    return Path(pooch.os_cache("netdepth"))


def _folders(data_dir: Path | None) -> Iterator[Path]:
    given = {"--data": data_dir, "NETDEPTH_DATA": os.environ.get("NETDEPTH_DATA")}
    for name, folder in given.items():
        if folder:
            if not os.path.isdir(folder):
                raise BadInput(f"{name} {str(folder)!r} is not a folder; it takes one that holds <dataset>/<files>")
            yield Path(folder)
    yield user_cache()  # last, because it has to import pooch


def locate(source: Source, data_dir: Path | None) -> dict[str, Path | None]:
    """Where each file of ``source`` lies, in whichever of its forms, by official name; None where it does not.

    Raises:
        BadInput: ``data_dir`` or $NETDEPTH_DATA is not a folder.
    """
    found: dict[str, Path | None] = {file.name: None for file in source.files}
    for folder in _folders(data_dir):
        for file in source.files:
            for name in [name for form in file.forms for name in form.file_names]:
                if found[file.name] is None and os.path.lexists(folder / source.name / name):
                    found[file.name] = folder / source.name / name
        if None not in found.values():
            break
    return found


def unpacked(source: Source, data_dir: Path | None) -> Path | None:
    """The folder in which the archive of ``source`` lies unpacked; None where it does not."""
    for folder in _folders(data_dir) if source.folders else ():
        if all((folder / source.name / name).is_dir() for name in source.folders):
            return folder / source.name
    return None


def _content(path: Path, file: OfficialFile) -> bytes:
    """The content of ``path`` if it is that of ``file``; else BadInput with the reason alone."""
    known = {form.sha256: (s, form) for s in SOURCES.values() for f in s.files for form in f.forms}
    # An archive is read whole even if it is another one, to say which.
    size = max([file.size, *(form.size for _, form in known.values() if form.archive and file.archive)])
    content = idx.read_content(path, size, unpack=not file.archive)
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        if digest in known:
            other, form = known[digest]
            what = f"the content of {other.name}/{form.name}"
        else:
            what = (archive if file.archive else idx).describe(content)
        raise BadInput(f"found sha256 {digest[:12]}, which is {what}")
    return content


def verified(path: Path, file: OfficialFile, source: Source) -> bytes:
    """The content of a local file (of ``file`` or the alternative it is called), decompressed unless it
    is an archive. The file is only read, whatever it holds.

    Raises:
        BadInput: it is not the official one; the line names it, both digests and what to do.
        StorageError: it cannot be read.
    """
    file = file.lying_at(path)
    try:
        return _content(path, file)
    except BadInput as reason:
        raise BadInput(
            f"{str(path)!r} is not {source.name}/{file.name}: {reason}; expected sha256 {file.sha256[:12]} "
            f"({file.measured}); put the official file there, or move this one away: netdepth data fetch {source.name}"
        ) from None


def obtain(
    source: Source,
    data_dir: Path | None,
    *,
    into: Path | None = None,
    mirrors: Sequence[str] | None = None,
    progress: bool = True,
    stall_seconds: float = STALL_SECONDS,
    download: bool = True,
) -> dict[str, bytes]:
    """The verified content of every file of ``source``, decompressed unless it is an archive, by official name.
    For an alternative that lies in a file's place, its content stands under the name of the file.

    What is not found locally is downloaded to ``into`` (None: the user cache) from the first of
    ``mirrors`` that delivers it; there is no network traffic where nothing is missing, nor without ``download``.

    Raises:
        BadInput: a local file has another content.
        StorageError: a file is not here and not to be downloaded, no mirror delivers it (the line says what to
            put where), or the disk fails.
    """
    found = locate(source, data_dir)
    contents = {file.name: verified(path, file, source) for file in source.files if (path := found[file.name])}
    missing = [file for file in source.files if file.name not in contents]
    if missing and not download:
        raise StorageError(
            f"{source.name}/{missing[0].name} is not on this machine; get it with: netdepth data fetch {source.name}; "
            f"or {_by_hand(source, missing, user_cache() / source.name)}"
        )
    if missing:
        mirrors = list(_override(source) or source.mirrors if mirrors is None else mirrors)
        folder = into or user_cache() / source.name
        with storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with DownloadProgress(shown=progress) as shown:
            contents.update(_download(source, missing, folder, mirrors, shown.received, stall_seconds))
    return {file.name: contents[file.name] for file in source.files}


def _override(source: Source) -> list[str]:
    """The one mirror that $NETDEPTH_MIRROR names, if any."""
    url = os.environ.get("NETDEPTH_MIRROR", "")
    if url and not re.fullmatch(r"https?://[^\s/]\S*", url):
        raise BadInput(f"NETDEPTH_MIRROR = {url!r} is not an address; it takes http://... or https://...")
    return [f"{url.rstrip('/')}/{source.name}"] if url else []


def _download(
    source: Source,
    missing: Sequence[OfficialFile],
    folder: Path,
    mirrors: list[str],
    report: Progress,
    stall_seconds: float,
) -> Iterator[tuple[str, bytes]]:
    for position, file in enumerate(missing):
        failures = []
        for form, mirror in itertools.product(file.forms, list(mirrors)):
            url = f"{mirror.rstrip('/')}/{form.name}"
            try:
                content = _download_one(url, form, folder, report, stall_seconds)
            except (Refused, BadInput) as reason:
                failures.append(f"{url}: {reason}")
                continue
            mirrors.remove(mirror)
            mirrors.insert(0, mirror)  # what answered is asked first for the next file
            yield file.name, content
            break
        else:
            hint = _by_hand(source, missing[position:], folder)
            raise StorageError(f"no mirror delivers {source.name}/{file.name} [{'; '.join(failures)}]; {hint}")


def _by_hand(source: Source, missing: Sequence[OfficialFile], folder: Path) -> str:
    """How to do without the download of ``missing``."""
    wanted = ", ".join(" or ".join(f"{form.name} (sha256 {form.sha256[:12]})" for form in f.forms) for f in missing)
    return (
        f"get {wanted} by other means and put them in {str(folder)!r} or in DIR/{source.name} with --data DIR "
        f"(netdepth data list -v has the whole digests, {missing[0].measured}), or use --dataset mnist5k, which needs "
        "no download"
    )


def _download_one(url: str, file: OfficialFile, folder: Path, report: Progress, stall_seconds: float) -> bytes:
    """Download to a temporary file, verify, rename: ``folder`` never shows an unverified file.

    Raises:
        Refused: the mirror failed. BadInput: it sent something else. StorageError: the disk failed.
    """
    temporary = folder / f".{file.name}.{os.getpid()}.tmp"
    try:
        with storage(temporary), open(temporary, "wb") as handle:
            transfer(url, handle, limit=file.size + idx.OVERHEAD, report=report, stall_seconds=stall_seconds)
            handle.flush()
            os.fsync(handle.fileno())
        content = _content(temporary, file)
        with storage(folder), open(temporary, "rb") as handle:
            # Some servers send a .gz file as a compressed transfer, which arrives decompressed.
            packed = file.archive or idx.is_gzip(handle.read(2))
            name = file.name if packed else file.name.removesuffix(".gz")
            os.replace(temporary, folder / name)
        return content
    finally:
        with storage(temporary):
            temporary.unlink(missing_ok=True)
