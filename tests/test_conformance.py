"""The conformance suites: everything built in keeps its promises, and a broken component is found out."""

import pytest

from netdepth.conformance import check_component, check_file
from netdepth.data.fetch import SOURCES
from netdepth.errors import BadInput
from netdepth.registry import REGISTRIES, registry_of

NEEDS_DATA = {("dataset", name) for name, source in SOURCES.items() if source.files or source.licence == "yours"}
SLOW = {("tracker", "wandb")}  # its whole life is tested in test_trackers.py
BUILT_IN = [
    (kind, name)
    for kind in REGISTRIES
    if kind != "model"  # tests/models/test_models.py runs the suite, with other settings too
    for name in registry_of(kind).names()
    if (kind, name) not in NEEDS_DATA | SLOW and registry_of(kind).entry(name).source is None
]


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_everything_built_in_keeps_its_promises(kind, name):
    findings = check_component(kind, name)
    assert len(findings) >= 2
    assert [f for f in findings if not f.kept] == []


GOOD = """
from typing import Annotated
from torch import nn
from netdepth.models import MODELS, Network

class Linear(Network):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes, depth={depth})
        self.head = nn.Linear(input_shape[0] * input_shape[1] * input_shape[2], num_classes)
        self.unused = nn.Linear(2, 2) if {unused} else None

    def forward(self, x):
        return self.head(self.normalize(x).flatten(1))

@MODELS.register("{name}")
def linear(input_shape, num_classes, generator):
    "Softmax regression."
    model = Linear(input_shape, num_classes)
    if not {seeded}:
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
    for name in {{"one", "two", "three", "four"}} if {in_the_order_of_a_set} else ():
        nn.init.constant_(model.head.bias, len(name) + ord(name[0]))
    return model
"""


def written(tmp_path, name="good", depth=1, unused=False, seeded=True, in_the_order_of_a_set=False):
    """A file ``name``.py with a model of that name; what to change in it breaks a promise."""
    path = tmp_path / f"{name}.py"
    path.write_text(GOOD.format(**{key: value for key, value in locals().items() if key != "tmp_path"}))
    return path


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({}, []),
        ({"depth": 7}, ["counts its depth"]),
        ({"unused": True}, ["gives every parameter a gradient"]),
        ({"seeded": False}, ["has other weights with another seed"]),
    ],
)
def test_each_broken_promise_of_a_users_model_is_named(tmp_path, changes, broken, monkeypatch):
    monkeypatch.setattr("netdepth.conformance._in_other_processes", lambda path, names: [])  # these take seconds
    found = [finding.promise for finding in check_file(str(written(tmp_path, **changes))) if not finding.kept]
    assert len(found) == len(broken)
    assert all(text.startswith(promise) for text, promise in zip(found, broken, strict=True))


def test_a_model_with_other_weights_in_another_process_is_found_out(tmp_path):
    path = written(tmp_path)
    path.write_text(path.read_text() + written(tmp_path, "bad", in_the_order_of_a_set=True).read_text())
    found = {(f.name, f.promise): f.kept for f in check_file(str(path))}
    assert [key for key, kept in found.items() if not kept] == [("bad", "has the same weights in two processes")]
    assert ("good", "has the same weights in two processes") in found


def test_a_file_that_registers_nothing_or_raises_is_one_clear_line(tmp_path):
    path = tmp_path / "empty.py"
    path.write_text("x = 1\n")
    with pytest.raises(BadInput, match="registers nothing"):
        check_file(str(path))
    path.write_text("1 / 0\n")
    with pytest.raises(BadInput, match="ZeroDivisionError"):
        check_file(str(path))
