"""McNemar's exact test of two runs, on their own predictions."""

import contextlib
import dataclasses
import io
import zipfile

import numpy as np
import pytest
from support.real_runs import CONFIG, make

from netdepth.config import Component
from netdepth.errors import BadInput
from netdepth.runs.compare import correct_of, mcnemar_of_runs
from netdepth.runs.folder import RunDir


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
