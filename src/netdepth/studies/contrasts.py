"""A comparison: its tests, the family that they are corrected in, and the label that follows.

Of each comparison up to four things are asked (`stats.family` corrects them together, at 0.05 for the study):

1. Do the two differ? The exact test of the capped losses has to say so, and the t test of them and of their logarithms.
2. Does one fail more often? Fisher's exact test of the runs that exploded or stayed at chance.
3. Are they equivalent, that is, does the difference lie inside ± the smallest effect of interest? Two one-sided t
   tests; not asked where a run failed, or where the 95 % interval excludes 0.
4. Does one overfit: validation error and gap between validation and training loss are larger, and the training loss
   is not worse?

A level, such as a depth, is compared with the reference level; the best of the others may not be tested, because the
same data chose it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from netdepth.stats.exact import failures_p
from netdepth.stats.family import Corrected, Question, Questions, corrected, spending
from netdepth.stats.intervals import Estimate, mean_interval
from netdepth.studies.cells import CellRun, CellRuns
from netdepth.studies.comparison import WORSE, CellVerdict, Contrast, Failures, Harm, Label, Tests
from netdepth.studies.samples import LEVEL, Samples, Side, Value, asks_equivalence, samples_of, sides_of
from netdepth.studyspec import FAMILIES, Family, Primary, StudySpec

__all__ = ["by_condition", "contrasts_of", "failed_as", "judge_cell", "judged_contrasts", "pairs"]


def judged_contrasts(
    cells: Mapping[tuple[str, str], CellRuns], spec: StudySpec, labels_only: bool = False
) -> list[Contrast]:
    """The comparisons named before the runs, with their labels.

    ``labels_only``: the exact test is left out where the t test alone rules a claim out: the labels are the same, the
    p-values are not. A simulation of thousands of studies needs no more.
    """
    tested = [_contrast(item, cells, spec, primary=True, labels_only=labels_only) for item in spec.primary]
    shares = corrected([_questions(contrast) for contrast in tested], spending(spec.looks, spec.max_looks))
    return [_judge(contrast, share, spec) for contrast, share in zip(tested, shares, strict=True)]


def contrasts_of(cells: Mapping[tuple[str, str], CellRuns], spec: StudySpec) -> list[Contrast]:
    """Every comparison: per family the primary ones, then the same questions at the other places of the grid."""
    judged = judged_contrasts(cells, spec)
    found = []
    for family in FAMILIES:
        own = [contrast for contrast in judged if contrast.family == family]
        found += own
        if family == "depth":
            asked = [Primary(family, level, name) for name in spec.conditions for level in spec.other_levels]
        elif family in ("shortcut", "condition"):
            twins = dict.fromkeys((contrast.item.condition, contrast.item.against) for contrast in own)
            asked = [Primary(family, level, name, against) for name, against in twins for level in spec.levels]
        else:
            asked = []
        named = {(c.item.level, c.item.condition, c.item.against) for c in own}
        more = [item for item in asked if (item.level, item.condition, item.against) not in named]
        found += [_contrast(item, cells, spec, primary=False) for item in more]
    return found


def judge_cell(cell: CellRuns, contrast: Contrast | None, spec: StudySpec) -> CellVerdict:
    """The label of a cell: that of the comparison with its reference. What became of its runs is no label."""
    if spec.early_stopping:
        return CellVerdict(cell, "not judged")
    if contrast is None:
        return CellVerdict(cell, "reference" if cell.level == spec.reference_level else "exploratory")
    return CellVerdict(cell, contrast.label, contrast.harm, contrast)


def by_condition(cells: Iterable[CellVerdict]) -> dict[str, list[CellVerdict]]:
    """The cells of each condition, by the order of the levels."""
    found: dict[str, list[CellVerdict]] = {}
    for item in cells:
        found.setdefault(item.cell.condition, []).append(item)
    return found


def pairs(contrasts: Iterable[Contrast], spec: StudySpec) -> list[tuple[Contrast, ...]]:
    """The comparisons named before the runs of each two conditions at the same level, by the order of the levels; not
    those of several data sets together."""
    found: dict[tuple[str, str], list[Contrast]] = {}
    for contrast in contrasts:
        if contrast.family in ("shortcut", "condition") and contrast.primary and not contrast.by_data_set:
            found.setdefault((contrast.cell.condition, contrast.against.condition), []).append(contrast)
    order = {level: index for index, level in enumerate(spec.levels)}
    return [tuple(sorted(pair, key=lambda contrast: order[contrast.cell.level])) for pair in found.values()]


def judged_value(family: Family, spec: StudySpec) -> Value:
    """What comparisons of ``family`` are decided by, per run; less is better."""
    if spec.metric is not None:
        sign = -1.0 if spec.higher_is_better else 1.0
        return lambda run: None if run.metric is None else sign * run.metric
    if family == "condition":
        return lambda run: run.val_error
    return lambda run: run.capped


def _contrast(
    item: Primary,
    cells: Mapping[tuple[str, str], CellRuns],
    spec: StudySpec,
    primary: bool,
    labels_only: bool = False,
) -> Contrast:
    sides = sides_of(item, cells, spec)
    samples = samples_of(item, sides, judged_value(item.family, spec), spec)
    # A trend goes up to the last level; all others are about their first two sides.
    cell, against = (sides[-1].cell, sides[0].cell) if item.family == "trend" else (sides[0].cell, sides[1].cell)
    if item.family == "interaction":
        against = sides[2].cell
    two = [side for side in sides if side.cell is cell or side.cell is against]
    error, gap = (
        (samples_of(item, two, value, spec) for value in (_val_error, _gap)) if len(sides) == 2 else (None, None)
    )
    failed = any(run.kind != "trained" for runs in samples.runs for run in runs)
    difference, (t_p, t_name) = samples.interval(), samples.t_test(failed)
    exact = None if labels_only and t_p > LEVEL else samples.exact()
    tests = Tests(exact.p if exact else 1.0, exact.method if exact else "none: no value", t_p, t_name)
    failures = _failures(cell, against)
    return Contrast(
        item=item,
        primary=primary,
        cell=cell,
        against=against,
        samples=samples,
        means=tuple(mean_interval(side).value for side in samples.values),
        difference=difference,
        tests=tests,
        failures=failures,
        equivalence_p=_equivalence_p(item, samples, difference, tests, failures, spec),
        overfitting_p=_overfitting_p(item, error, gap, spec) if error and gap else None,
        val_means=(mean_interval(error.values[0]).value, mean_interval(error.values[1]).value)
        if error
        else (None, None),
        val_difference=(error or samples).interval(),
        gap_difference=(gap or samples).interval(),
        higher=spec.metric is not None and spec.higher_is_better,
        by_data_set=_by_data_set(item, sides, spec),
    )


def _by_data_set(item: Primary, sides: Sequence[Side], spec: StudySpec) -> tuple[tuple[str, Estimate], ...]:
    """The difference in each data set of combined cells, in the unit of their mean."""
    value, losses = judged_value(item.family, spec), spec.by_loss
    found = []
    for index, (name, part) in enumerate(sides[0].cell.parts):
        unit = part.scale.chance if losses else 1.0
        own = [Side(side.cell.parts[index][1], side.weight / unit) for side in sides]
        found.append((name, samples_of(item, own, value, spec).interval()))
    return tuple(found)


def _failures(cell: CellRuns, against: CellRuns) -> Failures:
    """Of all finished runs, also those without a partner: crashed and missing ones are no failures of the network."""
    counts = [(sum(run.kind != "trained" for run in runs), len(runs)) for runs in (cell.runs, against.runs)]
    (failed, n), (others_failed, others) = counts
    return Failures(failed, n, others_failed, others, failures_p(failed, n, others_failed, others))


def _equivalence_p(
    item: Primary, samples: Samples, difference: Estimate, tests: Tests, failures: Failures, spec: StudySpec
) -> float | None:
    """Of "equivalent", or of "not worse" where that is the aim; 1 where the data rule it out, None where not asked."""
    relative = spec.effect == "relative"
    margin = spec.smallest_effect if item.margin is None else item.margin
    if item.aim == "not worse":
        return 1.0 if failures.failed else samples.not_worse(margin, relative)
    if not asks_equivalence(item, spec):
        return None
    if failures.failed or failures.against_failed:
        return 1.0
    includes_0 = difference.low is not None and difference.high is not None and difference.low <= 0 <= difference.high
    if tests.p <= LEVEL or not includes_0:
        return 1.0
    return samples.equivalence(margin, relative)


def _overfitting_p(item: Primary, error: Samples, gap: Samples, spec: StudySpec) -> float | None:
    """Both the validation error and the gap are larger; the larger p-value of the two. None without such numbers."""
    if item.family == "condition" or spec.metric is not None or item.aim != "difference" or not all(error.values):
        return None
    largest = 0.0
    for samples in (error, gap):
        value = samples.interval().value
        largest = max(largest, samples.t_test()[0]) if value is not None and value > 0 else 1.0
    for samples in (error, gap):  # the exact test takes longer, and can only add to a p-value
        exact = samples.exact() if largest <= LEVEL else None
        largest = largest if exact is None else max(largest, exact.p)
    return largest


def _val_error(run: CellRun) -> float | None:
    return run.val_error


def _gap(run: CellRun) -> float | None:
    """Validation loss minus training loss (nats); a run that did not train has not overfitted."""
    if run.kind != "trained":
        return 0.0
    return None if run.val_loss is None else run.val_loss - run.loss


def _questions(contrast: Contrast) -> Questions:
    """What is asked of a comparison, in the order of `stats.family`."""
    if contrast.by_data_set:  # the mean over data sets: that some fail, or overfit, is asked of each
        return Questions(contrast.tests.p)
    if contrast.item.aim == "not worse":
        return Questions(1.0 if contrast.equivalence_p is None else contrast.equivalence_p)
    difference, failures, overfitting = contrast.difference.value or 0.0, contrast.failures, contrast.overfitting_p
    if len(contrast.runs) == 2 and (failures.failed or failures.against_failed):
        p = failures.p if failures.excess * difference > 0 else 1.0  # one side has more failures and the better losses
        return Questions(contrast.tests.p, contrast.equivalence_p, "failures", p)
    better = overfitting is not None and difference < 0
    return Questions(
        difference=contrast.tests.p,
        equivalence=contrast.equivalence_p,
        second="overfitting" if better else None,
        second_p=overfitting if better and overfitting is not None else 1.0,
        overfitting_if_equivalent=overfitting,
    )


def _judge(contrast: Contrast, shares: Mapping[Question, Corrected], spec: StudySpec) -> Contrast:
    """A primary contrast with its label and harm."""
    held = min(1.0, shares["difference"].share) * LEVEL
    found = dataclasses.replace(contrast, corrected=shares, difference_corrected=contrast.samples.interval(1 - held))
    label: Label = "undecided"
    if found.claims("difference") and found.item.aim == "not worse":
        label = "not worse"
    elif found.claims("difference"):
        label = "helps" if (found.difference.value or 0) < 0 else "degraded"
        if label == "degraded" and found.claims("failures"):
            label = failed_as(found.cell.runs, found.against.runs)
    elif found.claims("equivalence"):
        label = "equivalent"
    by_training = found.family != "condition" and (spec.metric is None or spec.metric.startswith("train_"))
    harm: Harm | None = "training" if label in WORSE and by_training else None
    if label in ("helps", "equivalent") and found.claims("overfitting"):
        harm = "validation only"
    return dataclasses.replace(found, label=label, harm=harm)


def failed_as(runs: Sequence[CellRun], others: Sequence[CellRun]) -> Label:
    """How ``runs`` failed more often than ``others``: the kind whose share exceeds that of the others most."""
    kinds: tuple[Label, ...] = ("exploded", "vanished", "at chance")

    def share(kind: Label, of: Sequence[CellRun]) -> float:
        return sum(run.kind == kind for run in of) / max(len(of), 1)

    return max(kinds, key=lambda kind: share(kind, runs) - share(kind, others))
