"""Whether a picture is like those of training: how often real ones are called unlike, and altered ones are found."""

import numpy as np
import pytest

from netdepth import data
from netdepth.config import Component
from netdepth.errors import BadInput
from netdepth.files.likeness import PictureStatistics, picture_statistics


def rate(known: PictureStatistics, pictures: np.ndarray) -> float:
    """The share of ``pictures`` that are called unlike."""
    return float(np.mean([bool(known.differences(picture)) for picture in pictures]))


def test_real_digits_are_like_digits_and_inverted_or_dark_ones_are_not():
    splits = data.load(Component("mnist5k"), data_dir=None)
    known, val = splits.pictures, splits.val.inputs.numpy()
    assert rate(known, val) < 0.005
    assert rate(known, 255 - val[:100]) == 1
    assert rate(known, val[:100] >> 4) == 1
    words = known.differences(255 - val[0])
    assert words[0].startswith("mean brightness 2")
    assert "correlation with the mean picture −0." in words[-1]
    assert known.differences(np.full((1, 28, 28), 255, np.uint8)), "a blank page"


def test_with_the_normalisation_alone_inverted_digits_are_found():
    splits = data.load(Component("mnist5k"), data_dir=None)
    mean, std = (float(value) * 255 for value in splits.statistics)
    known, val = PictureStatistics.of_normalization(mean, std), splits.val.inputs.numpy()
    assert rate(known, val) == 0
    assert rate(known, 255 - val) > 0.98


@pytest.mark.parametrize("shape", [(5, 3, 2, 3), (1, 1, 1, 1), (3, 1, 7, 5), (2, 3, 300, 400)])
def test_any_shape_and_number_of_pictures_has_statistics(shape):
    pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    known = picture_statistics(pictures)
    assert known.pictures == len(pictures)
    assert known.differences(pictures[0]) == []


def test_statistics_of_a_strange_file_are_refused():
    with pytest.raises(BadInput, match="mean = "):
        PictureStatistics(1, (1.0,), (0.0, 1.0), (0.0, 1.0), ())  # type: ignore[arg-type]
