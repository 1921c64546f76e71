"""Early stopping, the best evaluation, and the detection of overfitting, on written-out curves."""

import math

import pytest

from netdepth.config import EarlyStopping, Overfitting
from netdepth.training.replica import BestTracker, EarlyStopper, OverfitDetector


def records(val, train=None):
    train = train or [1.0 / (i + 1) for i in range(len(val))]
    return [
        {"step": 10 * (i + 1), "epoch": float(i + 1), "val_loss": v, "train_loss": t, "val_accuracy": 1 - v}
        for i, (v, t) in enumerate(zip(val, train, strict=True))
    ]


def stops_at(config, val):
    stopper = EarlyStopper(config)
    return next((r["epoch"] for r in records(val) if stopper.update(r)), None)


def test_patience_counts_evaluations_since_the_best_and_a_new_best_resets_it():
    config = EarlyStopping(patience=2)
    assert stops_at(config, [5, 4, 3, 3, 3]) == 5
    assert stops_at(config, [5, 6, 4, 5, 3, 4]) is None
    assert stops_at(config, [5, 6, 6]) == 3
    assert stops_at(None, [1, 2, 3, 4, 5, 6]) is None


def test_min_delta_asks_for_a_real_improvement_since_the_last_real_one():
    assert stops_at(EarlyStopping(patience=2, min_delta=0.5), [5, 4.9, 4.8]) == 3
    # 4.4 is more than 0.5 below 5, though never 0.5 below its predecessor.
    assert stops_at(EarlyStopping(patience=2, min_delta=0.5), [5, 4.7, 4.4, 4.3, 3.8]) is None


def test_accuracy_is_maximised_and_nan_never_improves():
    assert stops_at(EarlyStopping("val_accuracy", patience=2), [0.5, 0.4, 0.3, 0.3, 0.3]) == 5
    assert stops_at(EarlyStopping(patience=2), [0.5, math.nan, math.nan]) == 3


def test_best_is_the_first_of_equals_and_none_before_a_finite_value():
    best = BestTracker("val_loss")
    assert [best.update(r) for r in records([math.nan, 3.0, 2.0, 2.0, 5.0])] == [False, True, True, False, False]
    assert (best.step, best.epoch) == (30, 3.0)


def onset(config, val, train=None):
    detector = OverfitDetector(config)
    stopped = [detector.update(r) for r in records(val, train)]
    return detector, stopped


def test_a_new_best_resets_the_counter_and_withdraws_the_onset():
    detector, _ = onset(Overfitting(patience=2), [3, 3.1, 2.9, 3.0])
    assert (detector.count, detector.onset_epoch) == (1, None)
    detector, _ = onset(Overfitting(patience=2), [3, 3.1, 3.2, 2.9])
    assert (detector.count, detector.onset_epoch) == (0, None)


RISING, FALLING = [5, 3, 2, 2.1, 2.2, 2.3, 2.4], [1.0 / (i + 1) for i in range(7)]


@pytest.mark.parametrize(
    ("settings", "val", "train", "expected"),
    [
        ({"patience": 3}, RISING, FALLING, 4.0),
        ({"patience": 2}, [2, 3, 4, 5], [1, 2, 3, 4], None),
        ({"patience": 2, "delta": 0.5}, [2, 2.1, 2.2, 2.3], None, None),
        ({"patience": 4}, [2, 2.5, 2.5, 2.5, 2.0, 2.5, 2.5, 2.5], None, None),
    ],
    ids=["the first epoch of the rise", "both losses rise", "a rise within delta", "an interrupted rise"],
)
def test_the_onset_of_overfitting(settings, val, train, expected):
    detector, stopped = onset(Overfitting(**settings), val, train)
    assert detector.onset_epoch == expected
    assert not any(stopped)


def test_overfitting_stops_a_run_only_if_asked_for_and_only_after_patience():
    _, stopped = onset(Overfitting(patience=3, action="stop"), RISING)
    assert stopped == [False] * 5 + [True, True]
