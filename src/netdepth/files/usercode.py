"""Running a user's own file, with the files beside it that it imports; what leaves it is one line that names the
place."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import platformdirs

from netdepth.errors import BadInput
from netdepth.owncode import USER_MODULE, digest_of, files_of, module_file, user_code

__all__ = ["import_user", "reason_of", "remember", "was_trained_here"]


def import_user(text: str) -> ModuleType:
    """``--import``: run a user's ``file.py``, or import an installed module, for what it registers.

    The same file with the same content, and that of the files of its folder that it imports (`files_of`), runs once
    per process. They are imported as they are now and leave no trace: neither ``sys.path`` nor ``sys.modules`` holds
    any of it afterwards.

    Raises:
        BadInput: it does not exist, or an exception left it.
    """
    path = Path(text)
    if not text.endswith(".py"):
        if not all(map(str.isidentifier, text.split("."))):
            raise BadInput(f"{text!r} is neither a Python file (FILE.py) nor the name of a module")
        try:
            with user_code(f"module {text!r}"):
                return importlib.import_module(text)
        except BadInput as error:
            missing = error.__cause__
            if isinstance(missing, ModuleNotFoundError) and f"{text}.".startswith(f"{missing.name}."):
                raise BadInput(f"cannot import {text!r}: {missing}") from None
            raise
    try:
        files = files_of(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {text!r}: {reason_of(error)}") from None
    digest = digest_of(files)
    key = hashlib.sha256(str(path.resolve()).encode(errors="surrogateescape") + b"\0" + digest.encode()).hexdigest()
    name = f"{USER_MODULE}{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{key[:10]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    for other, older in list(sys.modules.items()):
        if other.startswith(USER_MODULE) and getattr(older, "__file__", None) == module.__file__:
            del sys.modules[other]  # what it was before; should it be so again, it has to run again
    sys.modules[name] = module  # before running: dataclasses look their module up by name
    try:
        with user_code(text), _neighbours(path, files):
            exec(compile(files[""], str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _neighbours(path: Path, files: Mapping[str, bytes]) -> Iterator[None]:
    """What ``path`` imports from its folder is what ``files`` holds, and gone afterwards.

    Raises:
        BadInput: it imported one in a way that `files_of` does not see.
    """
    folder = path.resolve().parent
    tops = {name.partition(".")[0] for name in files if name}
    aside = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in tops}
    before, finder = set(sys.modules), _Neighbours(folder, files)
    sys.meta_path.insert(0, finder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
        came = {name: sys.modules[name] for name in set(sys.modules) - before}
        beside = {name for name, module in came.items() if _lies_beside(module, name, folder)}
        for name in came:
            if name in beside or name.partition(".")[0] in tops:
                del sys.modules[name]
        sys.modules.update(aside)
    unseen = sorted(beside - set(files))
    if unseen:
        raise BadInput(
            f"{path} imports {unseen[0]}, which lies beside it, in a way that cannot be followed, so a change of it "
            f"would not be noticed; write: import {unseen[0]}"
        )


def _lies_beside(module: ModuleType, name: str, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    expected = module_file(folder, name)
    return file is not None and expected is not None and Path(file).resolve() == expected


class _Neighbours(importlib.abc.MetaPathFinder):
    """Finds the modules of a folder whose sources were read already: what runs is what was read, in no cache of
    compiled files whose times could mislead."""

    def __init__(self, folder: Path, files: Mapping[str, bytes]) -> None:
        self.folder, self.files = folder, files

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a neighbour; None for any other module."""
        file = module_file(self.folder, name) if name and name in self.files else None
        if file is None:
            return None
        places = [str(file.parent)] if file.name == "__init__.py" else None
        loader = _Loader(name, str(file), self.files[name])
        return importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=places)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, content: bytes) -> None:
        super().__init__(name, path)
        self.content = content

    def get_code(self, fullname: str) -> types.CodeType:
        """The compiled source, from memory."""
        code: types.CodeType = self.source_to_code(self.content, self.path)
        return code


# --- what this account has trained with -----------------------------------------------------------


def was_trained_here(what: str) -> bool:
    """Whether this account has trained with code of this `digest_of`, or of ``module NAME``. A run folder may be
    somebody else's: what it names is run only then."""
    return _record(what).is_file()


def remember(what: str) -> None:
    """From now on `was_trained_here`."""
    with contextlib.suppress(OSError):  # without a cache it has to be named again
        _record(what).parent.mkdir(parents=True, exist_ok=True)
        _record(what).touch()


def _record(what: str) -> Path:
    return Path(platformdirs.user_cache_dir("netdepth")) / "own" / hashlib.sha256(what.encode()).hexdigest()


def reason_of(error: Exception) -> str:
    """An OSError without the path it repeats; anything else as it is."""
    return str((isinstance(error, OSError) and error.strerror) or error)
