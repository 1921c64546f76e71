"""What a probe of a run's features found: a table, sentences, a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netdepth.files.atomic import write_atomic
from netdepth.report.run_text import markdown_text
from netdepth.text import percent, print_table, printable

__all__ = ["markdown", "picture", "print_probe", "sentences"]

TITLES = {"knn": "k nearest neighbours", "svm": "linear SVM", "logistic": "logistic regression"}
NAMES = {"network": "features", "pixels": "raw pixels"}
COLOURS = {"network": "#0072B2", "pixels": "#D55E00"}  # Okabe and Ito 2008
LEVEL = 0.05


HEADER = ("of", "classifier", "chosen on validation", "validation", "test", "95 % interval", "p against pixels")


def print_probe(document: Mapping[str, Any]) -> None:
    """The table: a row per features and classifier, and chance below."""
    title = f"{document['run']} ({document['weights']} weights) on {document['title']}"
    print_table(HEADER, _rows(document), right=(3, 4), title=title, ruled=(2, 5))
    print(_fitted(document))
    if document["note"]:
        print(printable(f"note: {document['note']}"))


def markdown(document: Mapping[str, Any]) -> str:
    """Sentences and table as Markdown."""
    lines = [HEADER, ["---"] * len(HEADER), *([markdown_text(cell) for cell in row] for row in _rows(document))]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    said = "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences(document))
    title = f"**{markdown_text(document['run'])} on {markdown_text(document['title'])}**"
    return "\n\n".join([title, said, table, _fitted(document)]) + "\n"


def _fitted(document: Mapping[str, Any]) -> str:
    n = document["n"]
    tested = "no test images" if n["test"] is None else f"tested once on {n['test']:,}"
    return f"Fitted to {n['train']:,} training images, chosen on {n['val']:,} of validation, {tested}."


def _rows(document: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for row in document["probes"]:
        against = row["against_pixels"]
        interval = "-" if row["low"] is None else f"{100 * row['low']:.2f} to {100 * row['high']:.2f}"
        rows.append(
            [
                NAMES[row["features"]],
                TITLES[row["classifier"]],
                f"{row['setting']} = {row['value']:g}",
                percent(row["val_accuracy"]),
                percent(row["test_accuracy"]),
                interval,
                "" if against is None else _p(against["p"]),
            ]
        )
    rows.append(["nothing", "guessing", "", "", percent(document["chance"]), "", ""])
    return rows


def sentences(document: Mapping[str, Any]) -> list[str]:
    """The answer: the classifier that validation prefers, against chance and against the pixels."""
    best = {name: _best(document, name) for name in NAMES}
    network, pixels = best["network"], best["pixels"]
    if network["test_accuracy"] is None:
        return [f"There are no test images; on validation the features reach {percent(network['val_accuracy'])}."]
    n = document["n"]["test"]
    above = 100 * (network["test_accuracy"] - document["chance"])
    said = [
        f"A {TITLES[network['classifier']]} classifier on the network's features, the best on validation, is right on "
        f"{percent(network['test_accuracy'])} of {n:,} test images: {above:.1f} percentage points above chance "
        f"({percent(document['chance'])})."
    ]
    beyond = 100 * (network["test_accuracy"] - pixels["test_accuracy"])
    word = "above" if beyond >= 0 else "below"
    said.append(
        f"That is {abs(beyond):.1f} points {word} the classical baseline, {TITLES[pixels['classifier']]} on raw pixels "
        f"({percent(pixels['test_accuracy'])})."
    )
    for row in document["probes"]:
        if row["against_pixels"] is not None:
            said.append(_against(row))
    return said


def _against(row: Mapping[str, Any]) -> str:
    found = row["against_pixels"]
    counts = f"{found['only_network']:,} images are right with features only, {found['only_pixels']:,} with pixels only"
    if found["p"] > LEVEL:
        verdict = "no difference is shown"
    else:
        verdict = f"the {'features' if found['only_network'] > found['only_pixels'] else 'pixels'} win"
    return f"{TITLES[row['classifier']]}: {counts}; {verdict} (McNemar's exact test, p {_p(found['p'])})."


def _best(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    rows = [row for row in document["probes"] if row["features"] == name]
    return max(rows, key=lambda row: float(row["val_accuracy"]))


def _p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"= {p:.2g}"


def picture(folder: Path, document: Mapping[str, Any]) -> Path:
    """Draw ``probe.png``: accuracy of every classifier, of features and of pixels, with chance.

    Raises:
        StorageError: it cannot be written.
    """
    path = folder / "probe.png"
    if path.exists():
        return path
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    tested = document["n"]["test"] is not None
    kinds = list(TITLES)
    for name, shift in (("network", -0.14), ("pixels", 0.14)):
        rows = {row["classifier"]: row for row in document["probes"] if row["features"] == name}
        values = [100 * rows[kind]["test_accuracy" if tested else "val_accuracy"] for kind in kinds]
        places = [index + shift for index in range(len(kinds))]
        label = f"{NAMES[name]} ({document['dimensions'][name]} numbers)"
        if tested:
            errors = [
                [value - 100 * rows[kind]["low"] for kind, value in zip(kinds, values, strict=True)],
                [100 * rows[kind]["high"] - value for kind, value in zip(kinds, values, strict=True)],
            ]
            axes.errorbar(values, places, xerr=errors, fmt="o", color=COLOURS[name], label=label, capsize=3)
        else:
            axes.plot(values, places, "o", color=COLOURS[name], label=label)
        for value, place in zip(values, places, strict=True):
            axes.annotate(
                f"{value:.2f}", (value, place), (0, 7), textcoords="offset points", ha="center", fontsize=8,
                color=COLOURS[name],
            )  # fmt: skip
    axes.axvline(100 * document["chance"], color="#555555", linestyle="--", linewidth=1.2, label="chance")
    axes.set_yticks(range(len(kinds)), [TITLES[kind] for kind in kinds])
    axes.set_ylim(len(kinds) - 0.5, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"{'test' if tested else 'validation'} accuracy on {printable(document['dataset'])} (%)")
    axes.set_title(printable(document["run"]), fontsize=9, loc="left")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), ncols=3, fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomic(path, buffer.getvalue())
    return path
