"""`netdepth convert` from the outside, and loading what it makes."""

import os
import stat
import struct
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.made_weights import CLASSES, WIDTH, hostile, network, saved, weights

from netdepth.cli import main
from netdepth.errors import BadInput, StorageError
from netdepth.models import build
from netdepth.tools import convert as process
from netdepth.tools.convert import Conversion, convert
from netdepth.training.published import COUNTER, IMAGENET_MEAN, IMAGENET_STD, load_published


def command(capsys, *argv):
    code = main(["convert", *map(str, argv)])
    return code, *capsys.readouterr()


def test_the_command_writes_beside_the_file_and_says_what_it_is(tmp_path, capsys, monkeypatch):
    path = saved(tmp_path / "w.pth", {"state_dict": weights(), "epoch": 3})
    monkeypatch.chdir(tmp_path)
    code, out, err = command(capsys, "w.pth")
    assert (code, err) == (0, "")
    assert "fits resnet18 of width 4 with 7 classes" in out
    assert "taken from the entry state_dict\nleft out: epoch (int)\n" in out
    made = tmp_path / "w.safetensors"
    assert all(torch.equal(tensor, load_file(made)[key]) for key, tensor in weights().items())
    assert stat.S_IMODE(made.stat().st_mode) == stat.S_IMODE(path.stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [path, made]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resent18.pth", "(did you mean 'resnet18.pth'?); weights in its folder: huge.pth, other.pt, resnet18.pth"),
        ("nowhere/resnet18.pth", "weights in its folder: none"),
        ("folder.pth", "is a folder"),
        ("pipe.pth", "is a device or a pipe"),
        ("done.safetensors", "cannot be read as safetensors"),
        ("huge.pth", "has 5,368,709,120 bytes; weights are read up to 4,294,967,296"),
        ("other.pt", "was not made by convert"),
    ],
)
def test_bad_names_are_one_line(tmp_path, capsys, name, words):
    for made in ("resnet18.pth", "other.pt", "done.safetensors", "huge.pth"):
        (tmp_path / made).write_bytes(b"x")
    os.truncate(tmp_path / "huge.pth", 5 * 2**30)  # sparse: it takes no space
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "folder.pth").mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    before = sorted(tmp_path.iterdir())
    code, out, err = command(capsys, tmp_path / name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("out", "code", "words"),
    [("x.pth", 2, "has to end in .safetensors"), ("folder.safetensors", 2, "was not made by convert"),
     ("nowhere/x.safetensors", 74, "nowhere/x.safetensors: No such file")],
)  # fmt: skip
def test_bad_outputs_are_one_line(tmp_path, capsys, out, code, words):
    (tmp_path / "w.pth").write_bytes(b"x")
    (tmp_path / "folder.safetensors").mkdir()
    found = command(capsys, tmp_path / "w.pth", "--out", tmp_path / out)
    assert (found[0], found[2].count("\n")) == (code, 1)
    assert words in found[2]


def stand_in(monkeypatch, code):
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", code))


def test_a_conversion_may_be_made_again_and_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    path.write_bytes(b"x")
    out = tmp_path / "out.safetensors"
    save_file({"a": torch.ones(1)}, out, {"source_sha256": "0"})
    before = out.read_bytes()
    broken = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_bytes(b'half')"
    for code, error, words in [
        (f"{broken}; import os; os.kill(os.getpid(), 9)", BadInput, "with SIGKILL"),
        (f"{broken}; 1 / 0", BadInput, "exit status 1: ZeroDivisionError"),
        (f'{broken}; print(\'{{"error": "full", "code": 74}}\')', StorageError, "full"),
    ]:
        stand_in(monkeypatch, code)
        with pytest.raises(error, match=words):
            convert(path, out)
        assert sorted(tmp_path.iterdir()) == [out, path]
        assert out.read_bytes() == before
    fields = {"sha256": "0", "tensors": 1, "bytes": 4, "model": None, "classes": 10, "width": None, "fits": "nothing"}
    fields |= {"unwrapped": ["model"], "stripped": [], "shared": 0, "dropped": [], "dropped_count": 0}
    stand_in(monkeypatch, f"{broken}; import json; print(json.dumps({fields}))")
    assert convert(path, out) == Conversion(path, out, **fields)
    assert out.read_bytes() == b"half"


def test_the_reader_has_the_file_a_folder_and_a_time(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    path.write_bytes(b"content")
    look = (
        "import os, sys, json; print(json.dumps({'error': [os.listdir(), sys.stdin.read(), sys.argv[2:]], 'code': 2}))"
    )
    stand_in(monkeypatch, look)
    with pytest.raises(BadInput, match=r"\[\['made'\], 'content', \['7', 'w.pth', '{.*}'\]\]"):
        convert(path)
    stand_in(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(process, "BASE_SECONDS", 0.2)
    with pytest.raises(BadInput, match=r"could not be read within 0\.2 s"):
        convert(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "legacy", "bare"])
def test_the_command_runs_nothing(tmp_path, capsys, kind):
    path = hostile(tmp_path / "w.pth", tmp_path / "marker", kind)
    code, out, err = command(capsys, path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"would call {'torch.storage._load_from_bytes' if kind == 'bare' else 'posix.system'}" in err
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing limits the address space")
def test_a_file_that_asks_for_much_memory_is_refused(tmp_path, capsys):
    """A legacy file states how many numbers follow, here two thousand million: they are to be refused unread."""
    path = saved(tmp_path / "w.pth", {"a": torch.zeros(1_000_003)}, zipped=False)
    number, larger = b"J" + struct.pack("<i", 1_000_003), b"\x8a\x05" + (2**31).to_bytes(5, "little")
    content = path.read_bytes()
    assert content.count(number) == 2
    path.write_bytes(content.replace(number, larger))
    code, _, err = command(capsys, path)
    assert (code, err.count("\n")) == (2, 1)
    assert "asks for more memory than 4 times its size" in err


# --- loading --------------------------------------------------------------------------------------


def published(path, given):
    save_file({key: value.contiguous() for key, value in given.items()}, path)
    return path


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_published_weights_load_with_imagenets_normalisation(tmp_path, kind):
    given = {key: value.to(kind).float() for key, value in weights(seed=1).items()}
    old = {key: value.to(kind) for key, value in given.items() if kind == torch.float16 or COUNTER not in key}
    model = network(seed=2)
    load_published(published(tmp_path / "w.safetensors", old), model)
    state = model.state_dict()
    assert all(torch.equal(state[key], given[key]) for key in given if COUNTER not in key)
    assert model.conv1.weight.dtype == torch.float32
    image = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    assert torch.allclose(model.normalize(image), (image / 255 - mean) / std, atol=1e-6)


def test_a_network_of_ours_keeps_its_own_normalisation(tmp_path):
    given = network(seed=1)
    given.normalize.set_statistics(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7]))
    model = network(seed=2)
    load_published(published(tmp_path / "w.safetensors", given.state_dict()), model)
    assert all(torch.equal(a, b) for a, b in zip(given.state_dict().values(), model.state_dict().values(), strict=True))


@pytest.mark.parametrize("classes", [None, 1000])
def test_another_last_layer_is_left_out(tmp_path, classes):
    given = weights(seed=1, classes=classes or CLASSES)
    if classes is None:
        given = {key: value for key, value in given.items() if not key.startswith("fc.")}
    model = network(seed=2)
    load_published(published(tmp_path / "w.safetensors", given), model)
    assert torch.equal(model.layer4[1].conv2.weight, given["layer4.1.conv2.weight"])
    assert torch.equal(model.fc.weight, network(seed=2).fc.weight)


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"bn1.weight": None}, ["1 missing (bn1.weight)"]),
        ({f"x{i}": torch.ones(1) for i in range(5)}, ["5 unexpected (x0, x1, x2)"]),
        ({"bn1.weight": torch.ones(9)}, ["1 of another shape or type (bn1.weight [9] for [4])"]),
        ({"bn1.weight": torch.ones(4).int()}, ["1 of another shape or type (bn1.weight [4] for [4])"]),
        ({"fc.bias": None}, ["1 missing (fc.bias)"]),
        ({"fc.weight": torch.ones(9, 3), "fc.bias": torch.ones(9)}, ["2 of another shape or type (fc."]),
        (
            {"conv1.weight": None, "conv.weight": torch.ones(1)},
            ["1 missing (conv1.weight); 1 unexpected (conv.weight)"],
        ),
    ],
)
def test_weights_that_do_not_fit_change_nothing(tmp_path, changed, parts):
    given = {key: value for key, value in (weights(seed=1) | changed).items() if value is not None}
    model = network(seed=2)
    with pytest.raises(BadInput) as caught:
        load_published(published(tmp_path / "w.safetensors", given), model)
    assert not [part for part in parts if part not in str(caught.value)], caught.value
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), network(seed=2).state_dict().values(), strict=True)
    )


def test_only_fitting_safetensors_are_loaded(tmp_path):
    path = saved(tmp_path / "w.pth", weights())
    with pytest.raises(BadInput, match="netdepth convert makes them"):
        load_published(path, network())
    with pytest.raises(BadInput, match="No such file"):
        load_published(tmp_path / "none.safetensors", network())
    grey = build("resnet18", (1, 32, 32), CLASSES, width=WIDTH)
    with pytest.raises(BadInput, match="pictures of 3 channels; the network takes 1"):
        load_published(published(tmp_path / "w.safetensors", weights()), grey)
