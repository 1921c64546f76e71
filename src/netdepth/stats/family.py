"""Several questions under one 5 %: Holm's method, with a second question for what has been claimed.

A study makes m comparisons and asks up to three things of each. All are one family: the chance that
it claims anything false, of any kind, is at most the level.

*Differences* come first, by Holm's method (1979): the smallest p-value is held against 1/m of their part
of the level, the next one, after a claim, against 1/(m - 1), and so on. A claimed comparison may have a *second
question*: do more of its networks fail, or does it overfit? That inherits the comparison's share, and passes it on to
the others only if it is claimed too (the graphical approach of Bretz et al. 2009). So it costs nothing as long as
nothing is claimed, and nothing where it is not asked.

*Equivalences* have a part of their own, `RESERVE`, also by Holm's method. Of one comparison the null hypotheses "no
difference" and "a difference of the margin or more" cannot both be true. So a study of one comparison
gives the whole level to each; and of m equivalences at most m - 1 can be false claims while a difference is one.

Both parts together keep the level, whatever is true and however the comparisons depend on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from netdepth.errors import BadInput

__all__ = ["RESERVE", "Corrected", "Question", "Questions", "corrected", "shares", "spending"]

Question = Literal["difference", "equivalence", "failures", "overfitting"]

RESERVE = 0.06
"""The part of the level for equivalences in a study that asks for them in two or more comparisons: 0.003 of 0.05."""


@dataclass(frozen=True)
class Questions:
    """The p-values of one comparison; None where a question is not asked.

    ``second`` names the question that is asked after a claimed difference, ``after_equivalence`` says whether
    overfitting is asked after a claimed equivalence.
    """

    difference: float
    equivalence: float | None = None
    second: Literal["failures", "overfitting"] | None = None
    second_p: float = 1.0
    overfitting_if_equivalent: float | None = None


@dataclass(frozen=True)
class Corrected:
    """``p``: claim where it is at most the level. ``share``: the part of the level it was held against, so that
    ``p`` uncorrected ≤ level × ``share`` is the same decision, and an interval of that level fits to it."""

    p: float
    share: float


def corrected(family: Sequence[Questions], factor: float = 1) -> list[dict[Question, Corrected]]:
    """Per comparison the corrected p-value of each question asked; ``factor`` multiplies all p-values (`spending`).

    A second question has at least the corrected p-value of the first.

    Raises:
        BadInput: a p outside [0, 1].
    """
    asked = [questions.equivalence is not None for questions in family]
    difference, equivalence = shares(len(family), sum(asked))
    first = [[q.difference, *([q.second_p] if q.second is not None else [])] for q in family]
    same = [
        [p for p in (q.equivalence, q.overfitting_if_equivalent) if p is not None] if ask else []
        for q, ask in zip(family, asked, strict=True)
    ]
    most = max(len(family) - 1, 1)
    found: list[dict[Question, Corrected]] = []
    chains = (_step_down(first, len(first), factor / difference), _step_down(same, most, factor / equivalence))
    for questions, ordered, equal in zip(family, *chains, strict=True):
        entry: dict[Question, Corrected] = dict(zip(("equivalence", "overfitting"), equal, strict=False))
        entry["difference"] = ordered[0]
        if questions.second is not None and (questions.second not in entry or ordered[1].p < entry[questions.second].p):
            entry[questions.second] = ordered[1]
        found.append(entry)
    return found


def shares(comparisons: int, equivalences: int) -> tuple[float, float]:
    """The parts of the level for all differences and for all equivalences of a study."""
    if not equivalences or comparisons == 1:
        return 1.0, 1.0
    return 1 - RESERVE, RESERVE


def spending(analysis: int, planned: int | None) -> int:
    """What each p-value is multiplied by at the ``analysis``-th analysis of the same data, so that all together
    keep the level: ``planned`` if that many were declared before the first, else k (k + 1) at analysis k, whose
    reciprocals add up to 1 over any number of analyses.

    Raises:
        BadInput: more analyses than were declared.
    """
    if planned is None:
        return analysis * (analysis + 1)
    if analysis > planned:
        raise BadInput(f"analysis {analysis} is more than the {planned} declared; their 5 % are spent")
    return planned


def _step_down(chains: Sequence[Sequence[float]], most: int, times: float) -> list[list[Corrected]]:
    """Per chain of questions the corrected p-values: the smallest of those whose turn it is comes next, multiplied by
    the number of chains that are not at their end, at most ``most``."""
    done: list[list[Corrected]] = [[] for _ in chains]
    for p in (p for chain in chains for p in chain):
        if not 0 <= p <= 1:
            raise BadInput(f"p = {p!r} is out of range; it takes a number from 0 to 1")
    running = 0.0
    while left := [i for i, chain in enumerate(chains) if len(done[i]) < len(chain)]:
        chosen = min(left, key=lambda i: chains[i][len(done[i])])
        factor = min(len(left), most) * times
        running = max(running, min(1.0, chains[chosen][len(done[chosen])] * factor))
        done[chosen].append(Corrected(running, 1 / factor))
    return done
