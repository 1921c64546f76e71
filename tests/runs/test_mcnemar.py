"""McNemar's exact test against values that can be worked out by hand, and on runs' own predictions."""

import contextlib
import dataclasses
import io
import math
import zipfile

import numpy as np
import pytest
from support.real_runs import CONFIG, make

from netdepth.config import Component
from netdepth.errors import BadInput
from netdepth.runs.compare import correct_of, mcnemar_of_runs
from netdepth.runs.folder import RunDir
from netdepth.stats.exact import mcnemar


def answers(both, first, second, neither):
    a = np.repeat([True, True, False, False], [both, first, second, neither])
    b = np.repeat([True, False, True, False], [both, first, second, neither])
    return a, b


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (9, 1, 2 * (1 + 10) / 2**10),
        (0, 6, 2 / 2**6),
        (5, 5, 1.0),
        (0, 0, 1.0),
        # Agresti 2002, "Categorical Data Analysis", §10.1: 150 and 86 changed their mind; his z is 4.17.
        (150, 86, 2 * sum(math.comb(236, k) for k in range(87)) / 2**236),
    ],
)
def test_the_p_value_is_the_binomials(first, second, p):
    found = mcnemar(*answers(3, first, second, 4))
    assert (found.n, found.first, found.second) == (7 + first + second, first, second)
    assert found.p == pytest.approx(min(1.0, p), rel=1e-9)
    assert mcnemar(*reversed(answers(3, first, second, 4))).p == pytest.approx(found.p)


def test_the_textbook_example_is_as_clear_as_it_says():
    assert 2e-5 < mcnemar(*answers(794, 150, 86, 570)).p < 5e-5


def test_runs_are_compared_on_the_images_both_were_tested_on(tmp_path):
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, budget="5it", eval_every="5it"))
    first, second = (make(tmp_path, config.with_seed(seed)).run for seed in (0, 1))
    found = mcnemar_of_runs(first, second)
    accuracies = [run.result()["test"]["last"]["accuracy"] for run in (first, second)]
    assert found.first - found.second == round(1000 * (accuracies[0] - accuracies[1]))
    assert mcnemar_of_runs(first, first).p == 1
    other = make(tmp_path, dataclasses.replace(config, dataset=Component("mnist5k", {"classes": list("0123456789")})))
    with pytest.raises(BadInput, match="different images"):
        mcnemar_of_runs(first, other.run)


def test_damaged_predictions_are_refused_in_one_line_and_bounded_memory(tmp_path, monkeypatch):
    path = tmp_path / "predictions.npz"

    def refused(content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"no readable predictions.npz"):
            correct_of(RunDir(tmp_path))

    refused(b"no archive")
    whole = io.BytesIO()
    np.savez_compressed(whole, logits=np.eye(4, dtype=np.float32), labels=np.arange(4))
    for position in range(0, len(whole.getvalue()), 7):
        refused(whole.getvalue()[:position])
        flipped = bytearray(whole.getvalue())
        flipped[position] ^= 0x55
        path.write_bytes(flipped)
        with contextlib.suppress(BadInput):  # a flip in a date is none in the answers
            assert correct_of(RunDir(tmp_path))[0].all()

    def packed(logits: bytes) -> bytes:
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("logits.npy", logits)
        return sink.getvalue()

    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (2**45, 10)})
    refused(packed(huge.getvalue()))
    path.write_bytes(whole.getvalue())
    assert correct_of(RunDir(tmp_path))[0].all()
    monkeypatch.setattr("netdepth.runs.compare.MOST_BYTES", 200)
    refused(whole.getvalue())


def test_answers_to_other_images_are_refused():
    with pytest.raises(BadInput, match="the same images"):
        mcnemar(np.array([True]), np.array([True, False]))
