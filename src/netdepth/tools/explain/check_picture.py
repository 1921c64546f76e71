"""The check that maps matter: its curves as a picture, and what they say in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.report.style import DASHES, DPI, INK, MUTED, colour, figure_of, save_png, tidy
from netdepth.text import printable

if TYPE_CHECKING:
    from netdepth.stats.intervals import Estimate

__all__ = ["METHODS", "check_words", "draw_check"]

METHODS = {
    "cam": "class activation maps (Zhou et al. 2016)",
    "grad-cam": "Grad-CAM (Selvaraju et al. 2017)",
    "saliency": "input gradients (Simonyan et al. 2014)",
}
NAMES = {"map": "the map's pixels", "moved": "the map elsewhere", "scattered": "scattered pixels"}
PANELS = {
    "deletion": ("pixels deleted (%)", "deletion: lower is better"),
    "insertion": ("pixels inserted (%)", "insertion: higher is better"),
}
ENOUGH = 10
"""Pictures from which a conclusion is drawn."""
FIFTH = 0.2


def draw_check(title: str, check: Any, path: Path) -> tuple[int, int]:
    """Draw the curves of a `netdepth.tools.explain.Check` as PNG; returns width and height in pixels.

    Raises:
        StorageError: the file cannot be written.
    """
    width, height = 8.4, 3.6
    figure, panels = figure_of(width, height, 1, 2, left=0.075, right=0.975, top=0.76, bottom=0.16, wspace=0.16)
    with_band = " with its 95 % interval" if check.n >= ENOUGH else ""
    shares = [100 * fraction for fraction in check.fractions]
    for (act, (below, heading)), axes in zip(PANELS.items(), panels, strict=True):
        tidy(axes, heading, below)
        for index, kind in enumerate(NAMES):
            if check.n >= ENOUGH:
                low, high = (check.bands[act][kind][side] for side in ("low", "high"))
                axes.fill_between(shares, low, high, color=colour(index), alpha=0.14, linewidth=0)
            axes.plot(shares, check.curves[act][kind], color=colour(index), linestyle=DASHES[index], linewidth=2)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, max(0.05, 1.04 * max(max(curve) for one in check.curves.values() for curve in one.values())))
    panels[0].set_ylabel("probability of the answer", fontsize=9.5, color=MUTED)
    handles = panels[0].get_lines()
    figure.legend(handles, list(NAMES.values()), loc="upper left", bbox_to_anchor=(0.065, 0.915), ncols=3,
                  frameon=False, fontsize=9.5, labelcolor=INK, handlelength=2.6)  # fmt: skip
    figure.text(0.975, 0.945, f"n = {check.n}, mean{with_band}", fontsize=9, color=MUTED, ha="right")
    figure.text(0.075, 0.945, printable(title), fontsize=10.5, color=INK, parse_math=False)
    save_png(figure, path)
    return round(width * DPI), round(height * DPI)


def check_words(check: Any, pictures: str) -> list[str]:
    """What the check found, a sentence each; ``pictures`` is what they are ("validation images")."""
    at = check.fractions.index(FIFTH)
    gone, come = check.curves["deletion"], check.curves["insertion"]
    n = f"n = {check.n} {pictures}"
    found = [
        f"Deleting the fifth of the pixels that the map names lowers the probability of the answer from "
        f"{gone['map'][0]:.2f} to {gone['map'][at]:.2f}; the same map put elsewhere, to {gone['moved'][at]:.2f}; "
        f"a random fifth of scattered pixels, to {gone['scattered'][at]:.2f} ({n}, {check.repeats} random maps of "
        "each kind per picture).",
        f"Putting that fifth into the blurred picture raises it from {come['map'][0]:.2f} to {come['map'][at]:.2f}; "
        f"elsewhere, to {come['moved'][at]:.2f}; scattered, to {come['scattered'][at]:.2f}.",
        _conclusion(check.differences["deletion"]["moved"], check.differences["insertion"]["moved"]),
    ]
    if check.n >= ENOUGH and check.areas["deletion"]["scattered"].value < check.areas["deletion"]["map"].value:
        found.append(
            "Scattered pixels do more damage than the map's: they tear the picture everywhere at once, which says "
            "nothing of where the evidence lies."
        )
    return found


def _conclusion(deletion: Estimate, insertion: Estimate) -> str:
    """In words, whether the map's areas differ from those of the map elsewhere; decided by the deletion."""
    areas = " and ".join(
        f"{_signed(one)} under the {act} curve" for one, act in ((deletion, "deletion"), (insertion, "insertion"))
    )
    against = f"against the map elsewhere the area is {areas}"
    if deletion.n < ENOUGH or deletion.low is None or deletion.high is None:
        few = "one picture is" if deletion.n == 1 else f"{deletion.n} pictures are"
        return f"{few[:1].upper()}{few[1:]} too few to say whether the maps matter ({against})."
    if deletion.high < 0:
        said = "The maps name pixels that matter"
    elif deletion.low > 0:
        said = "The maps name pixels that matter less than others: do not trust them"
    else:
        said = "It is not shown that the maps name pixels that matter"
    return f"{said}: {against} (95 % interval over pictures)."


def _signed(one: Estimate) -> str:
    value = f"{one.value:+.3f}".replace("-", "−")
    if one.n < ENOUGH or one.low is None or one.high is None:  # of so few it would be wider than there is room
        return value
    return f"{value} [{one.low:+.3f}, {one.high:+.3f}]".replace("-", "−")
