"""The result of a sweep in a few sentences: the strategy to use, its speed, and the leaks."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.score_metric import ScoreMetric
from masksweep.sweeps.report import leak_atlas_results
from masksweep.sweeps.report.baseline import metric, noise_floors
from masksweep.sweeps.report.ranking import (
    MIN_SPEEDUP,
    StrategySummary,
    choose_strategies,
    group_by_kind,
    summarize_strategies,
)
from masksweep.sweeps.report.verdicts import control_held, count_unreached, is_inconclusive
from masksweep.sweeps.training.timing import NOISY_FACTOR


def sentences(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Returns the result of a sweep as sentences.

    Args:
        outcomes: The trials of the sweep.

    Returns:
        Pairs of (topic, sentence), for example `("Leak", "none of the strategies.")`.
    """
    by_kind = group_by_kind(outcomes)
    advice, leaks, unproven, not_run = [], [], [], []
    for kind, members in by_kind.items():
        by = metric(members[0])
        # noise of the same data sets only: on another one, seeds may lie further apart
        data = [o.trial.data for o in members]
        noise = noise_floors([o for o in outcomes if o.trial.data in data]).get(by)
        suffix = f" ({kind})" if len(by_kind) > 1 else ""
        results = summarize_strategies(members)
        advice += _recommend(results, suffix, noise, by)
        real = [s for s in results if s.role == "strategy"]
        leaks += [_describe_leaks(s) + suffix for s in real if s.leaking]
        unproven += [
            f"{s.strategy} in {n} of {s.trials} trials{suffix}"
            for s in real
            if (n := s.trials - s.held - s.leaking)
        ]
        for s in results:
            if s.role == "control":
                control_outcomes = [o for o in members if o.trial.label == s.strategy]
                advice.append((f"Control{suffix}", _describe_control(s, control_outcomes)))
        not_run += [
            f"{s.strategy}{suffix}: {n} {word}"
            for s in results
            for n, word in ((s.skipped, "skipped"), (s.failed, "failed"))
            if n
        ]
    compared = [o for members in by_kind.values() for o in members]
    tried = any(o.status == "ok" and o.trial.strategy.role == "strategy" for o in compared)
    none = "none of the strategies" if tried else "no strategy was tried"
    advice.append(("Leak", f"{'; '.join(leaks) or none}."))
    if unproven:
        why = "nothing that may train moved, or what was saved differs"
        advice.append(("Unproven", f"{'; '.join(unproven)}: {why}."))
    advice += [("Cut off", sentence)] if (sentence := _describe_cut_off(outcomes)) else []
    advice += [("Timing", sentence)] if (sentence := _describe_timing(outcomes)) else []
    return advice + ([("Not run", f"{'; '.join(not_run)}.")] if not_run else [])


SHOWN_PATTERNS = 5
"""Largest number of patterns whose units without a connection are named."""


def print_sentences(advice: Sequence[tuple[str, str]], console: Console) -> None:
    """Prints the sentences to a console."""
    for about, sentence in advice:
        console.print(Text.assemble((f"{about}: ", "bold"), sentence))


def _describe_cut_off(outcomes: Sequence[Outcome]) -> str:
    """Returns how many units and inputs the masks of each pattern leave without a connection.

    The numbers are the largest of all trials. Patterns that mask whole units or inputs on purpose
    are left out.
    """
    by_pattern: dict[str, dict[str, float]] = {}
    for o in outcomes:
        if o.trial.pattern.name not in ("rows", "columns"):
            most = by_pattern.setdefault(o.trial.pattern_label, {})
            for what in ("units", "inputs"):
                number = o.result.metrics.get(f"sparsity/cut_off_{what}", 0)
                most[what] = max(number, most.get(what, 0))
    texts = []
    # the most first
    ranked = sorted(by_pattern.items(), key=lambda item: -sum(item[1].values()))
    for label, most in ranked:
        if parts := [f"{n:,.0f} {what}" for what, n in most.items() if n]:
            texts.append(f"{label}: {' and '.join(parts)} have no connection left")
    others = len(texts) - SHOWN_PATTERNS
    if others > 1:
        texts[SHOWN_PATTERNS:] = [f"and fewer with {others} other patterns"]
    return f"{'; '.join(texts)}." if texts else ""


def _describe_timing(outcomes: Sequence[Outcome]) -> str:
    """Returns in how many trials the machine was too loaded; empty if in none."""
    ratios = [o.result.metrics.get("speed/dense_to_dense") for o in outcomes]
    timed = [f for f in ratios if f is not None]
    noisy = sum(f > NOISY_FACTOR for f in timed)
    if not noisy:
        return ""
    return (
        f"in {noisy} of {len(timed)} trials the machine was too loaded to say how fast a step is:"
        f" two timings of the same dense step differed by more than {NOISY_FACTOR - 1:.0%}."
    )


def _recommend(
    results: Sequence[StrategySummary], suffix: str, noise: float | None, by: ScoreMetric
) -> list[tuple[str, str]]:
    tie = choose_strategies(results, noise)
    if not tie:
        reason = "no strategy held in every trial, or none was scored"
        if any(s.role == "strategy" and s.holds for s in results):
            reason = "the strategies share no setting and seed in which they were scored"
        return [(f"Use{suffix}", f"none: {reason}.")]
    pick = tie[0]
    advice = [(f"Use{suffix}", _explain_pick(tie, noise, by))]
    if pick.ratio is not None:
        sentence = f"with {pick.strategy} {_describe_step_time(pick)} of a dense one's."
        advice.append((f"Speed{suffix}", sentence))
    others = [s for s in results if s.role == "strategy" and s.holds and s is not pick]
    if others:
        text = "; ".join(_compare_with_pick(s, pick, by) for s in others)
        advice.append((f"Also hold{suffix}", f"{text}."))
    return advice


def _explain_pick(tie: Sequence[StrategySummary], noise: float | None, by: ScoreMetric) -> str:
    """Returns which strategies to use, and why.

    The text has no step times, because they would differ in another run of the sweep.
    """
    pick, *others = tie
    if others:
        names = _join_names([s.strategy for s in others])
        text = f"{pick.strategy}, or equally {names}: each held in all of its trials."
    else:
        text = f"{pick.strategy}: it held in all of {pick.trials} trials."
    assert pick.score is not None
    text += f" Its mean {by.name} is {by.format(by.sign * pick.score)}"
    if noise is not None:
        noise_text = f"{noise:.1f} points" if by.is_accuracy else f"{noise:.4g}"
        text += f"; two seeds of the dense control lie {noise_text} apart."
    else:
        text += "; without two seeds of the dense control no score counts as better."
    if others:
        text += f" None of these is {MIN_SPEEDUP:g} times faster than another beyond the noise"
        text += f"; {_explain_order([s.strategy for s in tie])}."
    return text


def _explain_order(strategies: Sequence[str]) -> str:
    """Returns why the strategies are in this order (see `leak_atlas_results.rank`)."""
    cells = [leak_atlas_results.RESULTS.get(name) for name in strategies]
    known = [c for c in cells if c]
    if len(known) < len(cells):
        return "they are listed in a fixed order"
    if all(c == known[0] for c in known):
        return f"in the leak atlas each holds in {known[0].exact} of {known[0].tried} cells"
    return "they are ordered by the fraction of the leak atlas in which each holds"


def _join_names(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _describe_step_time(summary: StrategySummary) -> str:
    """Returns the step time as a ratio to dense: `a step takes 1.01 [0.98, 1.04]`."""
    return f"a step takes {_format_ratio(summary)}"


def _format_ratio(summary: StrategySummary) -> str:
    assert summary.ratio is not None
    ends = "" if summary.limits is None else " [{:.2f}, {:.2f}]".format(*summary.limits)
    return f"{summary.ratio:.2f}{ends}"


def _describe_leaks(summary: StrategySummary) -> str:
    through = f", through {', '.join(summary.causes)}" if summary.causes else ""
    return f"{summary.strategy} in {summary.leaking} of {summary.trials} trials{through}"


def _describe_control(summary: StrategySummary, outcomes: Sequence[Outcome]) -> str:
    """Returns the result of the control. It must leak if a gradient reaches a masked entry."""
    name = summary.strategy
    if not summary.trials:
        return f"{name} has not run: no verdict can be trusted."
    if any(map(control_held, outcomes)):
        return f"{name} HOLDS: no verdict can be trusted."
    still = [o for o in outcomes if is_inconclusive(o)]
    if not still:
        return f"{name} leaks in every trial, as it must."
    count = count_unreached(still)
    why = f"no gradient reaches the {count} masked entries, so nothing can move them"
    if len(still) == summary.trials:
        return f"{name} is inconclusive: {why}. It cannot show that the audit sees a leak."
    leaking = summary.trials - len(still)
    return f"{name} leaks in {leaking} of {summary.trials} trials, as it must; in the others {why}."


def _compare_with_pick(other: StrategySummary, pick: StrategySummary, by: ScoreMetric) -> str:
    parts = []
    if other.score is not None and pick.score is not None:
        parts.append(by.format_difference(by.sign * (other.score - pick.score)))
    if other.ratio is not None:
        parts.append(f"step {_format_ratio(other)}")
    if other.is_faster_than(pick):
        parts.append("faster")
    elif pick.is_faster_than(other):
        parts.append("slower")
    return f"{other.strategy} ({', '.join(parts)})" if parts else other.strategy
