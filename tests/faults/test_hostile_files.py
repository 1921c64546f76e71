"""Row 6: files that would run code, or reach out of their folder, in place of data, weights, checkpoints, documents.

Every case works in a field of its own. What it must not do is leave the marker that its payload makes, or change
anything in ``victim``, which lies beside the store.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cifar_archives import SHAPES, World, archive_of, entry, files_of, make_world, packed, tar
from support.folders import make
from support.hostile_pickles import Call, hostile_pickles
from support.made_weights import hostile as hostile_weights

from faults.ground import INTERRUPTED, Answer, alter_json, answer, resign, run_at, store_at, tree
from faults.record import Faults
from netdepth.config import Component
from netdepth.data import load
from netdepth.errors import BadInput

pytestmark = pytest.mark.faults


class Field:
    """Where a case works: a store, a victim beside it, and the marker that nothing may make."""

    def __init__(self, root: Path, cifar: World) -> None:
        self.root, self.cifar = root, cifar
        self.marker, self.victim, self.store = root / "marker", root / "victim", root / "runs"

    def pickle(self) -> bytes:
        """A pickle that would make the marker."""
        return pickle.dumps(Call(os.system, f"touch {self.marker}"), 2)

    def objects(self) -> bytes:
        """A ``.npy`` file of objects, of which one is that pickle."""
        array = np.empty(1, object)
        array[0] = Call(os.system, f"touch {self.marker}")
        sink = io.BytesIO()
        np.save(sink, array, allow_pickle=True)
        return sink.getvalue()

    def python(self) -> Path:
        """A file.py that would make the marker and offers a recipe and a network."""
        path = self.root / "evil.py"
        path.write_text(f"from pathlib import Path\nPath({str(self.marker)!r}).touch()\ndef recipe(): ...\n")
        return path

    def ask(self, *argv: object) -> Answer:
        return answer(*argv, "--runs", self.store)


def refused_load(name: str, data_dir: Path, **settings: object) -> None:
    with pytest.raises(BadInput) as caught:
        load(Component(name, settings), data_dir=data_dir)
    assert "\n" not in str(caught.value)


# --- data ---------------------------------------------------------------------------------------


def cifar_batch(kind: str) -> Callable[[Field], None]:
    """A pickle in place of a batch: refused by the archive's digest, and by the unpickler where the digest is right."""

    def case(field: Field) -> None:
        files = files_of("cifar10", "python")
        files[f"{SHAPES['cifar10'].python_folder}/data_batch_3"] = hostile_pickles(field.marker)[kind]
        field.cifar.put("cifar10", "python", archive_of(files))
        assert "found sha256" in field.cifar.refused("cifar10")
        field.cifar.changed("cifar10", "python", files)
        assert "only arrays of bytes are read" in field.cifar.refused("cifar10")

    return case


def cifar_archive(field: Field) -> None:
    """An archive with an entry that reaches out of it."""
    field.cifar.put("cifar10", "python", packed(tar([entry("../../victim/written", b"x")])))
    assert "found sha256" in field.cifar.refused("cifar10")


def mnist_pickle(field: Field) -> None:
    folder = field.root / "data" / "mnist"
    folder.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (folder / name).write_bytes(field.pickle())
    refused_load("mnist", field.root / "data")


def postscript_picture(field: Field) -> None:
    """Pillow would hand PostScript to Ghostscript, another program."""
    root = make(field.root / "pictures", train=2)
    (root / "train" / "ant" / "00.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n(%pipe%touch " + bytes(field.marker) + b") (w) file\n"
    )
    refused_load("image-folder", field.root, path=str(root))
    assert "none of JPEG" in field.ask("predict", "kept-mnist5k-s7", root / "train" / "ant" / "00.png").line


def decoded_objects(field: Field) -> None:
    """The cache of decoded pictures is read without pickle; what is no array of pixels is made again."""
    root = make(field.root / "pictures", train=2)
    before = load(Component("image-folder", {"path": str(root)}), data_dir=None).train.inputs
    (cached,) = (Path(os.environ["XDG_CACHE_HOME"]) / "netdepth" / "decoded").glob("*.npy")
    cached.write_bytes(field.objects())
    assert load(Component("image-folder", {"path": str(root)}), data_dir=None).train.inputs.equal(before)


# --- weights ------------------------------------------------------------------------------------


def weights(kind: str) -> Callable[[Field], None]:
    def case(field: Field) -> None:
        path = hostile_weights(field.root / "w.pth", field.marker, kind)
        assert "nothing was run" in field.ask("convert", path).line

    return case


def torchscript(field: Field) -> None:
    path = field.root / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", field.pickle())
        archive.writestr("w/constants.pkl", field.pickle())
        archive.writestr("w/version", b"3\n")
        archive.writestr("../../victim/written", b"by the archive")
    field.ask("convert", path).line  # noqa: B018 - the property asserts that it is a refusal


# --- checkpoints ----------------------------------------------------------------------------------


def lying(offsets: tuple[int, int], size: int | None = None) -> bytes:
    """Safetensors whose header lies about where the tensor is, or about its own length."""
    header = json.dumps({"head.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": offsets}}).encode()
    return struct.pack("<Q", len(header) if size is None else size) + header + bytes(16)


def checkpoint(make_data: Callable[[Field], bytes]) -> Callable[[Field], None]:
    """Weights of a finished run are replaced, and every digest agrees with that."""

    def case(field: Field) -> None:
        resign(run_at(field.store), "model.safetensors", make_data(field))
        picture = field.root / "x.png"
        Image.new("L", (28, 28)).save(picture)
        assert "cannot be loaded" in field.ask("predict", "kept-mnist5k-s7", picture).line

    return case


def resumed(name: str) -> Callable[[Field], None]:
    """A file of an unfinished run's checkpoint is replaced; the run fails in one line or starts again."""

    def case(field: Field) -> None:
        resign(run_at(field.store, INTERRUPTED), name, field.pickle())
        config = run_at(field.store, INTERRUPTED) / "config.json"
        found = field.ask("train", config, "--track", "none", "--threads", 1)
        assert found.code in (0, 1, 2), found.err
        assert "Traceback" not in found.err

    return case


# --- documents ------------------------------------------------------------------------------------


def replaced(name: str, *commands: tuple[str, ...], data: Callable[[Field], bytes] = Field.pickle) -> (
    Callable[[Field], None]
):  # fmt: skip
    """A file of the finished run, or of the study, is replaced; every command that reads it answers."""

    def case(field: Field) -> None:
        folder = field.store / "tiny" if name == "study.json" else run_at(field.store)
        (folder / name).write_bytes(data(field))
        for command in commands:
            found = field.ask(*command)
            assert found.code in (0, 1, 2), found.err
            assert "internal error" not in found.err, found.err

    return case


def config_naming(change: Callable[[Field, dict[str, object]], object]) -> Callable[[Field], None]:
    """A config.json that asks for a file.py which nobody named on the command line."""

    def case(field: Field) -> None:
        path = run_at(field.store) / "config.json"
        alter_json(path, lambda document: change(field, document))
        field.ask("train", path, "--track", "none").line  # noqa: B018 - it is refused

    return case


def fresh_elsewhere(field: Field) -> None:
    """A study.json that names a folder outside as one of its runs: ``--fresh`` would remove it."""
    path = field.store / "tiny" / "study.json"
    for folder in ("../../victim", str(field.victim), "..", "."):
        alter_json(path, lambda document, folder=folder: document["runs"][0].update(folder=folder))
        assert "no name of a folder" in field.ask("study", path, "--fresh", "--workers", 0).line


def linked(part: str) -> Callable[[Field], None]:
    """A run folder that is, or holds, a link to the victim: ``--fresh`` and resuming would write and remove there."""

    def case(field: Field) -> None:
        run = run_at(field.store, INTERRUPTED)
        config = shutil.copy(run / "config.json", field.root / "config.json")
        link = run / part if part else run
        if link.is_dir():
            shutil.rmtree(link)
        link.unlink(missing_ok=True)
        link.symlink_to(field.victim / "kept.txt" if part.endswith((".log", ".jsonl")) else field.victim)
        for options in (["--fresh"], []):
            assert "is a link" in field.ask("train", config, *options, "--track", "none", "--threads", 1).line

    return case


READ = (("runs", "list"), ("compare", "kept-mnist5k-s7"), ("inspect", "kept-mnist5k-s7"))
STUDY = (("verdict", "tiny"), ("report", "tiny"), ("report", "tiny", "--check"))

CASES: dict[str, tuple[str, Callable[[Field], None]]] = {
    **{f"batch of CIFAR: {kind}": ("data", cifar_batch(kind)) for kind in sorted(hostile_pickles(Path("x")))},
    "archive of CIFAR: an entry outside": ("data", cifar_archive),
    "MNIST: a pickle": ("data", mnist_pickle),
    "a picture in PostScript": ("data", postscript_picture),
    "decoded pictures: an array of objects": ("data", decoded_objects),
    **{f"weights: {kind}": ("weights", weights(kind)) for kind in ("zip", "legacy", "bare")},
    "weights: TorchScript": ("weights", torchscript),
    "model.safetensors: a pickle": ("checkpoint", checkpoint(Field.pickle)),
    "model.safetensors: offsets beyond its end": ("checkpoint", checkpoint(lambda _: lying((0, 2**40)))),
    "model.safetensors: negative length": ("checkpoint", checkpoint(lambda _: lying((16, 0)))),
    "model.safetensors: a header of exabytes": ("checkpoint", checkpoint(lambda _: lying((0, 16), 2**62))),
    "model.safetensors: another network's": ("checkpoint", checkpoint(lambda _: lying((0, 16)))),
    **{f"{name}: a pickle": ("checkpoint", resumed(name)) for name in ("optimizer.safetensors", "state.json")},
    **{
        f"{name}: a pickle": ("document", replaced(name, *READ))
        for name in ("config.json", "result.json", "split.json", "metrics.jsonl", "probes/init.json")
    },
    "predictions.npz: an array of objects": ("document", replaced("predictions.npz", *READ, data=Field.objects)),
    "study.json: a pickle": ("document", replaced("study.json", *STUDY)),
    "study.json: a folder outside": ("document", fresh_elsewhere),
    "config.json: imports": ("document", config_naming(lambda f, d: d.update(imports=[str(f.python())]))),
    "config.json: a network from a file": (
        "document",
        config_naming(lambda f, d: d["model"].update(name=f"{f.python()}:recipe")),
    ),
    "config.json: a data set from a file": (
        "document",
        config_naming(lambda f, d: d.update(dataset=f"{f.python()}:recipe")),
    ),
    **{
        f"a link in place of {part or 'the run'}": ("link", linked(part))
        for part in ("", "checkpoints", "probes", "metrics.jsonl", "tracker-tensorboard.log")
    },
}
"""What takes the place of what, and the case."""


@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file that looks like a TorchScript")
def test_nothing_in_a_file_is_executed_and_nothing_outside_is_touched(
    faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(CASES)
    assert count >= 25
    with faults.drill(6, "hostile pickles, archives, weights and documents", quick=count) as drill:
        for number, (name, (place, case)) in enumerate(CASES.items()):
            root = tmp_path / str(number)
            root.mkdir()
            monkeypatch.chdir(root)
            monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
            field = Field(root, make_world(root / "cifar", monkeypatch))
            store_at(field.store)
            field.victim.mkdir()
            (field.victim / "kept.txt").write_text("kept")
            (field.victim / "7").mkdir()  # as a checkpoint is named
            before = tree(field.victim)
            with drill.injection(name, at=place):
                case(field)
                assert not field.marker.exists(), "it was executed"
                assert tree(field.victim) == before, "what lies outside was touched"


def test_the_payloads_work_where_a_pickle_is_loaded(tmp_path: Path) -> None:
    """Else the drill above would show nothing."""
    marker = tmp_path / "marker"
    field = Field(tmp_path, None)
    for data in (*hostile_pickles(marker).values(), field.pickle()):
        pickle.loads(data, encoding="latin1")
        assert marker.exists()
        marker.unlink()
    np.load(io.BytesIO(field.objects()), allow_pickle=True)
    assert marker.exists()
    assert archive_of({"a/b": b""}), "the archives are made by the same hand as the good ones"
