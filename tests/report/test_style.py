"""What all pictures share: colours that survive in a small file, and points where no line leads."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from netdepth.report.style import COLOURS, colour, figure_of, isolated, save_png


def test_the_colour_of_a_thin_line_survives_beside_many_shades(tmp_path: Path) -> None:
    figure, (above, below) = figure_of(6, 6, 2, 1)
    squares = np.linspace(-1, 1, 200) ** 2
    above.imshow(np.add.outer(squares, squares), cmap="viridis")
    for index in range(len(COLOURS)):
        below.plot([0, 1], [index, index], color=colour(index), linewidth=8)
    content = io.BytesIO(save_png(figure, tmp_path / "a.png").read_bytes())
    pixels = np.asarray(Image.open(content).convert("RGB")).reshape(-1, 3).astype(int)
    for shade in COLOURS:
        wanted = [int(shade[i : i + 2], 16) for i in (1, 3, 5)]
        assert abs(pixels - wanted).max(1).min() <= 12, f"{shade} became another colour"


def test_the_notebook_keeps_the_colours_too() -> None:
    source = (Path(__file__).parents[2] / "notebooks" / "lab1.py").read_text()
    assert ".quantize(256, Picture.Quantize.MAXCOVERAGE" in source, "64 colours turn a legend's orange grey"


def test_points_without_a_neighbour_are_isolated() -> None:
    nan = math.nan
    assert isolated([1.0, nan, 2.0, 3.0, math.inf, 4.0]) == [0, 5]
    assert isolated([1.0]) == [0]
    assert isolated([]) == []
    assert isolated([1.0, 2.0]) == []
