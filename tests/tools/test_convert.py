"""The process that reads published weights, tried out in this one: what it writes, and what it refuses."""

import pickle
import zipfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support.made_weights import CLASSES, WIDTH, hostile, saved, weights

from netdepth.errors import BadInput
from netdepth.tools.convert import reader
from netdepth.training.published import recognise

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def rewritten(path):
    """The report and the tensors that the reader makes of ``path``, in this process."""
    out = path.with_suffix(".safetensors")
    with open(path, "rb") as handle:
        report = reader.rewrite(handle, out, path.name)
    return report, load_file(out)


def refused(path):
    with pytest.raises(BadInput) as caught:
        rewritten(path)
    assert "\n" not in str(caught.value)
    assert not path.with_suffix(".safetensors").exists()
    return str(caught.value)


# --- what is written ------------------------------------------------------------------------------


@FORMATS
def test_names_values_and_types_are_kept(tmp_path, zipped):
    given = weights() | {
        "half": torch.randn(3).half(),
        "brain": torch.randn(2, 2).bfloat16(),
        "flag": torch.tensor(True),
    }
    report, found = rewritten(saved(tmp_path / "w.pth", given, zipped))
    assert given.keys() == found.keys()
    assert all(torch.equal(given[key], found[key]) and given[key].dtype == found[key].dtype for key in given)
    assert (report["tensors"], report["dropped"], report["shared"]) == (len(given), [], 0)
    assert report["bytes"] == sum(tensor.nbytes for tensor in given.values())


def test_a_checkpoint_is_unwrapped_and_prefixes_go(tmp_path):
    given = weights()
    prefixed = {f"module._orig_mod.{key}": value for key, value in given.items()}
    entries = {"epoch": 3, "optimizer": {"state": {}}, "model": {"state_dict": prefixed | {"note": "hello", 5: 6}}}
    report, found = rewritten(saved(tmp_path / "w.pt", entries))
    assert given.keys() == found.keys()
    assert report["unwrapped"] == ["model", "state_dict"]
    assert report["stripped"] == ["module.", "_orig_mod."]
    left_out = ["epoch (int)", "optimizer (dict)", "note (str)", "one named by a value of type int (int)"]
    assert report["dropped"] == left_out
    assert report["dropped_count"] == 4
    report, found = rewritten(saved(tmp_path / "w.pt", {"module.a": torch.ones(1), "b": torch.ones(1)}))
    assert (set(found), report["stripped"]) == ({"module.a", "b"}, [])


def test_shared_and_scattered_memory_becomes_tensors_of_their_own(tmp_path):
    base = torch.arange(24.0).view(4, 6)
    given = {
        "all": base, "again": base, "row": base[1], "across": base.t(), "one": base[2:3, 4], "none": base[:0],
        "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last), "same": torch.ones(1).expand(5),
        "number": torch.tensor(2.5), "parameter": torch.nn.Parameter(torch.randn(3)),
    }  # fmt: skip
    report, found = rewritten(saved(tmp_path / "w.pth", given))
    assert given.keys() == found.keys()
    assert all(torch.equal(given[key], found[key]) for key in given)
    assert report["shared"] == 4


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "fits resnet18 of width 4 with 7 classes"),
        ({"fc.weight": None, "fc.bias": None}, "fits resnet18 of width 4 without its last layer"),
        ({"bn1.num_batches_tracked": None}, "fits resnet18 of width 4 with 7 classes"),
        ({"fc.bias": None}, "nearest: resnet18; tensors that differ: 1)"),
        (
            {"layer1.0.conv1.weight": torch.ones(4, 4, 1, 1), "more": torch.ones(1)},
            "nearest: resnet18; tensors that differ: 2)",
        ),
        ({"conv1.weight": torch.ones(0, 2**40, 7, 7), "fc.weight": torch.ones(2**40, 0)}, "fits no network"),
    ],
)
def test_the_network_is_recognised(tmp_path, changed, words):
    given = {key: value for key, value in (weights() | changed).items() if value is not None}
    report, _ = rewritten(saved(tmp_path / "w.pth", given))
    assert words in report["fits"]
    with safe_open(tmp_path / "w.safetensors", "pt") as made:
        metadata = made.metadata()
    assert metadata["source"] == "w.pth"
    assert metadata["source_sha256"] == report["sha256"]
    assert metadata.get("model") == report["model"] == ("resnet18" if "fits resnet18" in words else None)


@pytest.mark.parametrize("depth", [34, 50, 101, 152])
def test_every_depth_is_told_from_the_others(depth):
    shapes = {key: tuple(value.shape) for key, value in weights(name=f"resnet{depth}").items()}
    assert recognise(shapes).fits == f"fits resnet{depth} of width {WIDTH} with {CLASSES} classes"


# --- files that are not what they should be ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "legacy", "bare"])
def test_nothing_in_a_file_is_run(tmp_path, kind):
    path, marker = tmp_path / "w.pth", tmp_path / "marker"
    hostile(path, marker, kind)
    called = "torch.storage._load_from_bytes" if kind == "bare" else "posix.system"  # pickle's own way with a tensor
    assert f"reading it would call {called}, and weights need no code; nothing was run" in refused(path)
    assert not marker.exists()
    if kind != "bare":
        torch.load(path, weights_only=False)
        assert marker.exists(), "the payload must work, or this test shows nothing"


@FORMATS
def test_truncated_files_are_refused(tmp_path, zipped):
    whole = saved(tmp_path / "whole.pth", weights(), zipped).read_bytes()
    path = tmp_path / "w.pth"
    for share in (0.0001, 0.01, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert refused(path).startswith("holds no weights of PyTorch, or is damaged (")


def torchscript(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "version"):
            archive.writestr(f"w/{name}", b"3\n")


@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file that looks like a TorchScript")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no weights"),
        (b"\x89PNG\r\n" + bytes(100), "holds no weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "holds no weights"),
        (pickle.dumps({"a": 1}, protocol=4), "holds no weights"),
        (torchscript, "TorchScript"),
        (lambda path: torch.save([torch.ones(1)], path), "holds one list, not tensors by name"),
        (lambda path: torch.save({"epoch": 3}, path), "no tensors; its entries: epoch (int)"),
        (lambda path: torch.save({}, path), "no tensors; its entries: none"),
        (lambda path: torch.save({"a": torch.eye(2).to_sparse()}, path), "'a' in a form that safetensors lacks"),
        (lambda path: torch.save({"a": torch.empty(2, device="meta")}, path), "'a' in a form that safetensors lacks"),
        (lambda path: torch.save({"a": torch.ones(1).expand(10**6, 10**6)}, path), "4,000,000,000,000 bytes"),
        (lambda path: torch.save({"a": torch.ones(2, dtype=torch.complex128)}, path), "cannot be written"),
        (lambda path: torch.save({"\ud800": torch.ones(2)}, path), "cannot be written"),
        (lambda path: torch.save({"__metadata__": torch.ones(2)}, path), "'__metadata__'"),
    ],
)  # fmt: skip
def test_what_holds_no_weights_is_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    assert words in refused(path)


def test_an_entry_that_holds_itself_ends(tmp_path):
    entry = {"note": 1}
    entry["model"] = entry
    assert "no tensors" in refused(saved(tmp_path / "w.pth", entry))
