"""The result of a linear probe: as a type, a table, sentences, Markdown and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from netdepth.config import Json, from_json
from netdepth.files.atomic import restored
from netdepth.report.run_text import markdown_table, markdown_text
from netdepth.report.style import MUTED, colour, figure_of, save_png, tidy
from netdepth.text import fixed, p_equals, p_value, percent, plain, points, print_table, printable, thousands

__all__ = ["AgainstPixels", "Counts", "Result", "Row", "Tried", "draw", "markdown", "print_result", "sentences"]

TITLES = {"knn": "k nearest neighbours", "svm": "linear SVM", "logistic": "logistic regression"}
NAMES = {"network": "features", "pixels": "raw pixels"}
LEVEL = 0.05
HEADER = ("of", "classifier", "chosen on validation", "validation", "test", "95 % interval", "p against pixels")


# --- the result ---


@dataclass(frozen=True)
class Tried:
    """A value of k or C, and the accuracy on validation."""

    value: float
    val_accuracy: float


@dataclass(frozen=True)
class AgainstPixels:
    """McNemar's test against the same classifier on raw pixels: test images that only one of the two gets right."""

    only_network: int
    only_pixels: int
    p: float
    test: str = "McNemar, exact"


@dataclass(frozen=True)
class Row:
    """A ``classifier`` on ``features`` (network or pixels) with the chosen ``value`` of its ``setting``, k or C.

    Accuracies are fractions; ``low`` and ``high`` are Wilson's interval at 95 %. Without test images they are None.
    """

    features: str
    classifier: str
    setting: str
    value: float
    val_accuracy: float
    test_accuracy: float | None
    low: float | None
    high: float | None
    against_pixels: AgainstPixels | None
    tried: tuple[Tried, ...]


@dataclass(frozen=True)
class Counts:
    """Images of each part; ``test`` is None if the data set has no test part."""

    train: int
    val: int
    test: int | None


@dataclass(frozen=True)
class Result:
    """The content of ``probe.json``: a row per features and classifier, and their run, weights and data."""

    run: str
    weights: str
    version: int
    weights_sha256: str
    data_digest: str
    split_digest: str
    images: int | None
    dataset: str
    title: str
    note: str | None
    dimensions: Mapping[str, int]
    n: Counts
    classes: int
    chance: float
    most_frequent_class: float | None
    probes: tuple[Row, ...]

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> Result:
        """The result in a file.

        Raises:
            BadInput: something is missing, or has another type.
        """
        found: Result = from_json(cls, restored(document), "probe.json")
        return found

    def best(self, features: str) -> Row:
        """The classifier on ``features`` that validation prefers."""
        return max((row for row in self.probes if row.features == features), key=lambda row: row.val_accuracy)


# --- as text ---


def print_result(result: Result) -> None:
    """The table: a row per features and classifier, and chance below."""
    title = f"{result.run} ({result.weights} weights) on {result.title}"
    print_table(HEADER, _cells(result), right=(3, 4), title=title, ruled=(2, 5), spare=(2, 3))
    print(_fitted(result))
    if result.note:
        print(printable(f"note: {result.note}"))


def markdown(result: Result) -> str:
    """Sentences and table as Markdown."""
    table = markdown_table(HEADER, [[markdown_text(cell) for cell in row] for row in _cells(result)], ())
    listed = "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences(result))
    title = f"**{markdown_text(result.run)} on {markdown_text(result.title)}**"
    return "\n\n".join([title, listed, table, _fitted(result)]) + "\n"


def _fitted(result: Result) -> str:
    n = result.n
    tested = "no test images" if n.test is None else f"tested once on {thousands(n.test)}"
    return f"Fitted to {thousands(n.train)} training images, chosen on {thousands(n.val)} of validation, {tested}."


def _cells(result: Result) -> list[list[str]]:
    rows = []
    for row in result.probes:
        ends = (
            "-"
            if row.low is None or row.high is None
            else " to ".join(points(end, sign=False) for end in (row.low, row.high))
        )
        chosen = f"{row.setting} = {plain(row.value)}"
        p = "" if row.against_pixels is None else p_value(row.against_pixels.p)
        accuracies = [percent(row.val_accuracy), percent(row.test_accuracy)]
        rows.append([NAMES[row.features], TITLES[row.classifier], chosen, *accuracies, ends, p])
    return [*rows, ["nothing", "guessing", "", "", percent(result.chance), "", ""]]


def sentences(result: Result) -> list[str]:
    """The answer: the classifier that validation prefers, compared with chance and with raw pixels."""
    network, pixels = result.best("network"), result.best("pixels")
    if network.test_accuracy is None or pixels.test_accuracy is None:
        return [f"There are no test images. On validation the features reach {percent(network.val_accuracy)}."]
    above, beyond = network.test_accuracy - result.chance, network.test_accuracy - pixels.test_accuracy
    return [
        f"The best classifier on the network's features (chosen on validation), {TITLES[network.classifier]}, is right "
        f"on {percent(network.test_accuracy)} of {thousands(result.n.test)} test images: {_points(above)} percentage "
        f"points above chance ({percent(result.chance)}).",
        f"That is {_points(beyond)} points {'above' if beyond >= 0 else 'below'} the classical baseline, "
        f"{TITLES[pixels.classifier]} on raw pixels ({percent(pixels.test_accuracy)}).",
        *(_against(row.classifier, row.against_pixels) for row in result.probes if row.against_pixels is not None),
    ]


def _points(difference: float) -> str:
    return points(abs(difference), 1).lstrip("+")


def _against(classifier: str, found: AgainstPixels) -> str:
    left, right = thousands(found.only_network), thousands(found.only_pixels)
    counts = f"{left} images are right with features only, {right} with pixels only"
    if found.p > LEVEL:
        answer = "no difference is shown"
    else:
        answer = f"the {'features' if found.only_network > found.only_pixels else 'pixels'} are better"
    return f"{TITLES[classifier]}: {counts}; {answer} (McNemar's exact test, {p_equals(found.p)})."


# --- as a picture ---


def draw(folder: Path, result: Result) -> Path:
    """Draw ``probe.png`` unless it exists: the accuracy of every classifier, of features and of pixels, with chance.

    Raises:
        StorageError: it cannot be written.
    """
    path = folder / "probe.png"
    if path.exists():
        return path
    figure, (axes,) = figure_of(6.4, 3.6, left=0.24, right=0.97, top=0.8, bottom=0.15)
    part = "validation" if result.n.test is None else "test"
    tidy(axes, "", f"{part} accuracy on {result.dataset} (%)")
    kinds = list(TITLES)
    for index, (features, shift, above) in enumerate((("network", -0.14, 7), ("pixels", 0.14, -14))):
        for row in (row for row in result.probes if row.features == features):
            height = kinds.index(row.classifier) + shift
            value = 100 * (row.val_accuracy if row.test_accuracy is None else row.test_accuracy)
            if row.low is not None and row.high is not None:
                axes.plot([100 * row.low, 100 * row.high], [height] * 2, "|-", color=colour(index))
            axes.plot(value, height, "o", color=colour(index))
            axes.annotate(fixed(value), (value, height), (0, above), textcoords="offset points", ha="center",
                          fontsize=8, color=colour(index))  # fmt: skip
        axes.plot([], [], "o", color=colour(index), label=f"{NAMES[features]} ({result.dimensions[features]} numbers)")
    axes.axvline(100 * result.chance, color=MUTED, linestyle="--", linewidth=1.2, label="chance")
    axes.set_yticks(range(len(kinds)), [TITLES[kind] for kind in kinds])
    axes.set(ylim=(len(kinds) - 0.5, -0.6), xlim=(0, 100))
    axes.grid(axis="x", alpha=0.3)
    figure.text(0.03, 0.94, printable(result.run), fontsize=9, parse_math=False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.38, 1.0), ncols=3, fontsize=8, frameon=False)
    return save_png(figure, path)
