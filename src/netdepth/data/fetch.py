"""Official files: found on this machine or downloaded, and always compared with a sha256 before they are parsed.

    DIR/<dataset>/<official file name>      DIR is --data, then $NETDEPTH_DATA, then the user cache

The digest of an archive is that of the file as it is: nothing of an altered archive is unpacked. That of
any other file is the digest of the decompressed content, because two distributors may compress the same data
differently. ``NETDEPTH_MIRROR=URL`` makes downloads come from ``URL/<dataset>/<file>`` alone.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import itertools
import os
import re
import ssl
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import certifi
import platformdirs

from netdepth.errors import BadInput, StorageError
from netdepth.files.atomic import reading, storage
from netdepth.progress import DownloadProgress

__all__ = [
    "SOURCES", "OfficialFile", "Source", "archive_files", "download", "gunzip", "locate", "obtain", "own_source",
    "publish", "unpacked", "user_cache", "verified",
]  # fmt: skip

STALL_SECONDS = 20.0
"""A mirror that does not answer, or sends fewer than `CHUNK` bytes, for this long is given up."""

CHUNK = 8192
OVERHEAD = 65_536
"""Bytes by which a gzip file may exceed its content: header, a stored file name, incompressible blocks."""


@dataclass(frozen=True)
class OfficialFile:
    """A file of a data set. ``sha256`` and ``size`` (bytes) are those of its decompressed content, or of the file
    as it is if it is an ``archive``. ``alternatives`` hold the same data in another form: any of them may be in
    this file's place, and they are downloaded where this one cannot be."""

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
        """The names under which it is looked for: an archive only under its own."""
        return (self.name,) if self.archive else (self.name, self.name.removesuffix(".gz"))

    @property
    def measured(self) -> str:
        """What the digest is of."""
        return "of the archive as it is" if self.archive else "of the decompressed content"

    def form_at(self, path: Path) -> OfficialFile:
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


def own_source(name: str, title: str, form: str) -> Source:
    """Enter data of the user's own, for which ``--dataset FORM`` asks."""
    return publish(Source(name, title, sizes={}, licence="yours", origin=f"--dataset {form}"))


# --- on this machine --------------------------------------------------------------------------


def user_cache() -> Path:
    """The folder of downloads and decoded pictures (``~/.cache/netdepth`` on Linux)."""
    return Path(platformdirs.user_cache_dir("netdepth"))


def _folders(data_dir: Path | None) -> Iterator[Path]:
    given = {"--data": data_dir, "NETDEPTH_DATA": os.environ.get("NETDEPTH_DATA")}
    for name, folder in given.items():
        if folder:
            if not os.path.isdir(folder):
                raise BadInput(f"{name} {str(folder)!r} is not a folder; it takes one that holds <dataset>/<files>")
            yield Path(folder)
    yield user_cache()


def locate(source: Source, data_dir: Path | None) -> dict[str, Path | None]:
    """The path of each file of ``source``, in any of its forms, by official name; None where there is none.

    Raises:
        BadInput: ``data_dir`` or $NETDEPTH_DATA is not a folder.
    """
    folders = [folder / source.name for folder in _folders(data_dir)]
    found = {}
    for file in source.files:
        names = [name for form in file.forms for name in form.file_names]
        paths = (folder / name for folder in folders for name in names)
        found[file.name] = next(filter(os.path.lexists, paths), None)
    return found


def unpacked(source: Source, data_dir: Path | None) -> Path | None:
    """The folder that holds the unpacked archive of ``source``; None where there is none."""
    for folder in _folders(data_dir) if source.folders else ():
        if all((folder / source.name / name).is_dir() for name in source.folders):
            return folder / source.name
    return None


def obtain(source: Source, data_dir: Path | None) -> dict[str, bytes]:
    """The verified content of every file of ``source``, decompressed unless it is an archive, by official name.
    The content of an alternative is under the name of the file that it replaces. Nothing is downloaded.

    Raises:
        BadInput: a local file has another content.
        StorageError: a file is missing (the line says how to get it) or cannot be read.
    """
    contents = {}
    for file, path in zip(source.files, locate(source, data_dir).values(), strict=True):
        if path is None:
            raise StorageError(
                f"{source.name}/{file.name} is not on this machine; get it with: netdepth data fetch {source.name}; "
                f"or {_without_download(source, [file], user_cache() / source.name)}"
            )
        contents[file.name] = verified(path, file, source)
    return contents


def verified(path: Path, file: OfficialFile, source: Source) -> bytes:
    """The content of a local file (``file`` or the alternative with that name), decompressed unless it is an archive.

    Raises:
        BadInput: it is not the official one; the line names it, both digests and what to do.
        StorageError: it cannot be read.
    """
    file = file.form_at(path)
    try:
        return _content(path, file)
    except BadInput as reason:
        raise BadInput(
            f"{str(path)!r} is not {source.name}/{file.name}: {reason}; expected sha256 {file.sha256[:12]} "
            f"({file.measured}); put the official file there, or move this one away: netdepth data fetch {source.name}"
        ) from None


def _content(path: Path, file: OfficialFile) -> bytes:
    """The content of ``path`` if it is that of ``file``; else BadInput with the reason alone."""
    known = {form.sha256: (s, form) for s in SOURCES.values() for f in s.files for form in f.forms}
    # Another archive is read whole too, to recognise it by its digest.
    size = max([file.size, *(form.size for _, form in known.values() if form.archive and file.archive)])
    content = _read(path, size)
    if not file.archive and is_gzip(content) and len(content) <= size + OVERHEAD:
        content = gunzip(content, size)
    if len(content) > size:
        raise BadInput(f"it holds more than the {size} bytes expected")
    digest = hashlib.sha256(content).hexdigest()
    if digest == file.sha256:
        return content
    what = f"{len(content)} bytes"
    if digest in known:
        other, form = known[digest]
        what = f"the content of {other.name}/{form.name}"
    raise BadInput(f"found sha256 {digest[:12]}, which is {what}")


def _read(path: Path, size: int) -> bytes:
    """The bytes of ``path``, but not many more than a content of ``size`` bytes takes."""
    with reading(path):
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe would wait for a writer
                raise BadInput("it is not a regular file")
            with open(path, "rb") as handle:
                return handle.read(size + OVERHEAD + 1)
        except FileNotFoundError:
            raise BadInput("it is a link to a file that does not exist") from None


def is_gzip(head: bytes) -> bool:
    """Whether ``head`` begins a gzip stream; an IDX file begins with two zero bytes."""
    return head[:2] == b"\x1f\x8b"


def gunzip(raw: bytes, size: int) -> bytes:
    """The content of the gzip stream ``raw``: at most ``size`` bytes are ever decompressed, and one more.

    Raises:
        BadInput: truncated, corrupted (checksum included), longer than ``size``, or followed by other data.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
            content = stream.read(size + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise BadInput(f"its gzip stream is damaged ({error})") from None
    if len(content) > size:
        raise BadInput(f"its gzip stream holds more than the {size} bytes expected")
    return content


def archive_files(archive: bytes) -> dict[str, bytes]:
    """The files in a tar archive by path, read into memory. Its sha256 was checked: there are no surprises in it."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry)) is not None}


# --- downloads --------------------------------------------------------------------------------


def download(source: Source, data_dir: Path | None, *, progress: bool = True) -> None:
    """Verify the local files of ``source`` and download the missing ones to ``data_dir``, else to the user cache.

    Each comes from the first mirror that delivers it: $NETDEPTH_MIRROR, else those of ``source``.

    Raises:
        BadInput: a local file has another content.
        StorageError: no mirror delivers a file (the line says how to do without), or the disk fails.
    """
    missing = []
    for file, path in zip(source.files, locate(source, data_dir).values(), strict=True):
        if path is None:
            missing.append(file)
        else:
            verified(path, file, source)
    mirrors = _own_mirror(source) or list(source.mirrors)
    folder = (data_dir or user_cache()) / source.name
    for position, file in enumerate(missing):
        with storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
        failures = []
        for form, mirror in itertools.product(file.forms, mirrors):
            url = f"{mirror.rstrip('/')}/{form.name}"
            try:
                _download_file(url, form, folder, progress)
            except BadInput as reason:
                failures.append(f"{url}: {reason}")
                continue
            mirrors = sorted(mirrors, key=lambda other: other != mirror)  # this one is asked first for the next file
            break
        else:
            hint = _without_download(source, missing[position:], folder)
            raise StorageError(f"no mirror delivers {source.name}/{file.name} [{'; '.join(failures)}]; {hint}")


def _own_mirror(source: Source) -> list[str]:
    """The one mirror that $NETDEPTH_MIRROR names, if any."""
    url = os.environ.get("NETDEPTH_MIRROR", "")
    if url and not re.fullmatch(r"https?://[^\s/]\S*", url):
        raise BadInput(f"NETDEPTH_MIRROR = {url!r} is not an address; it takes http://... or https://...")
    return [f"{url.rstrip('/')}/{source.name}"] if url else []


def _without_download(source: Source, missing: Sequence[OfficialFile], folder: Path) -> str:
    """How to do without the download of ``missing``."""
    wanted = ", ".join(" or ".join(f"{form.name} (sha256 {form.sha256[:12]})" for form in f.forms) for f in missing)
    return (
        f"get {wanted} by other means and put them in {str(folder)!r} or in DIR/{source.name} with --data DIR "
        f"(netdepth data list -v shows the whole digests, {missing[0].measured}), or use --dataset mnist5k, which "
        "needs no download"
    )


def _download_file(url: str, file: OfficialFile, folder: Path, progress: bool) -> None:
    """Download to a temporary file, verify, rename: ``folder`` never shows an unverified file.

    Raises:
        BadInput: the mirror failed or sent something else; the reason alone.
        StorageError: the disk failed.
    """
    temporary = folder / f".{file.name}.{os.getpid()}.tmp"
    try:
        with storage(temporary), open(temporary, "wb") as handle, DownloadProgress(shown=progress) as shown:
            for chunk in _received(url, file.size + OVERHEAD):
                handle.write(chunk)
                shown.received(url, handle.tell(), file.size)
            handle.flush()
            os.fsync(handle.fileno())
        _content(temporary, file)
        with storage(folder), open(temporary, "rb") as handle:
            # Some servers decompress a .gz file before they send it.
            packed = file.archive or is_gzip(handle.read(2))
            os.replace(temporary, folder / (file.name if packed else file.name.removesuffix(".gz")))
    finally:
        with storage(temporary):
            temporary.unlink(missing_ok=True)


def _received(url: str, limit: int) -> Iterator[bytes]:
    """What ``url`` delivers, ``limit`` bytes at most; redirects are followed.

    Raises:
        BadInput: no answer, an error status, too many bytes, or fewer than `CHUNK` of them for `STALL_SECONDS`
            (a byte now and then does not keep a download alive).
    """
    request = urllib.request.Request(url, headers={"User-Agent": "netdepth"})
    certificates = ssl.create_default_context()  # of the system, and of certifi for a Python installed without them
    certificates.load_verify_locations(certifi.where())
    received = 0
    try:
        with urllib.request.urlopen(request, timeout=STALL_SECONDS, context=certificates) as response:
            counted, since = 0, time.monotonic()
            while chunk := response.read1(CHUNK):
                received += len(chunk)
                if received > limit:
                    raise BadInput(f"sends more than the {limit} bytes the file can have")
                if received - counted >= CHUNK:
                    counted, since = received, time.monotonic()
                elif time.monotonic() - since > STALL_SECONDS:
                    raise TimeoutError
                yield chunk
            if response.length:  # still expected
                raise http.client.IncompleteRead(b"")
    except urllib.error.HTTPError as error:  # a redirect too, if it leads in a circle or to something other than a page
        error.close()
        raise BadInput(f"answers HTTP {error.code}") from None
    except TimeoutError:
        raise BadInput(f"stalls: nothing for {STALL_SECONDS:g} s after {received} bytes") from None
    except urllib.error.URLError:
        raise BadInput("cannot be reached") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BadInput(f"breaks off after {received} bytes ({type(error).__name__})") from None
