"""A choice of a type of machine in words, and as JSON."""

from __future__ import annotations

import math
from typing import Any

from gotrace.analysis.stats.values import Estimate
from gotrace.fleet.choose import Choice, Rule
from gotrace.fleet.choose_types import Candidate, estimate_text
from gotrace.fleet.trend_points import day_text
from gotrace.text import count_text, percent_text


def evidence(each: Candidate) -> str:
    """On what a type was measured: 6 hosts, 24 measurements, 2026-08-01 to 2026-08-02."""
    days = " to ".join(dict.fromkeys(day_text(day) for day in each.days)) if each.runs else "days unknown"
    return f"{count_text(each.enough.hosts, 'host')}, {count_text(each.runs, 'measurement')}, {days}"


def rule_text(rule: Rule, choice: Choice) -> str:
    """One rule as a sentence, with what it costs."""
    take = rule.take
    price = f"within {take.price.per_hour:.4g} {take.price.currency}/h: " if take.price and choice.by_cost else ""
    unsure = f" (indistinguishable from {rule.unsure} in {choice.metric})" if rule.unsure else ""
    flag = " [burstable: not measured beyond its credits]" if take.is_lent else ""
    return f"{rule.when}: {take.name}{unsure}{flag}" if not price else f"{price}{take.name}, {rule.when}{unsure}{flag}"


def cost_text(each: Candidate) -> str:
    """Of a million requests, with its interval; "-" if it is not known."""
    if each.cost is None or each.price is None:
        return "-"
    interval = f" ({each.cost.low:.3g} to {each.cost.high:.3g})" if math.isfinite(each.cost.low) else ""
    return f"{each.cost.value:.3g}{interval} {each.price.currency}"


def spread_text(each: Candidate) -> tuple[str, str]:
    """Between hosts, and from day to day."""
    between, within = ("-" if of is None else percent_text(of) for of in each.stability)
    return between, within


def heads(choice: Choice) -> list[str]:
    """Of the table of what kept all."""
    return ["type", choice.metric, "letters", "a million requests", "between hosts", "between days", "price", "measured on"]


def rows(choice: Choice) -> list[list[str]]:
    """What kept all: those of the rules first, then those that others beat."""
    taken = list({rule.take.name: rule.take for rule in choice.rules}.values())
    return [
        [
            each.name,
            estimate_text(each, choice.metric).removeprefix(f"{choice.metric} "),
            each.letters,
            cost_text(each),
            *spread_text(each),
            str(each.price) if each.price else "unknown",
            evidence(each),
        ]
        for each in (*taken, *choice.beaten)
    ]


def cut_text(each: Candidate) -> str:
    """Why a type is not among those that are left, and on what evidence."""
    return f"{each.name}: {each.cut or f'beaten by {each.beaten_by}'}; {evidence(each)}"


def estimate_to_json(of: Estimate) -> dict[str, float | None]:
    """Null for ends that are not known."""
    low, high = (end if math.isfinite(end) else None for end in (of.low, of.high))
    return {"value": of.value, "low": low, "high": high, "confidence": of.confidence}


def type_to_json(each: Candidate) -> dict[str, Any]:
    """`gotrace.records.fleet.ChoiceType`; times in ns."""
    return {
        "type": each.name,
        "provider": each.provider,
        "instance": each.instance,
        "hosts": each.enough.hosts,
        "runs": each.runs,
        "days": [day_text(day) for day in each.days] if each.runs else None,
        "plan": each.measured.plan or None,
        "versions": list(each.versions),
        "go_versions": list(each.go_versions),
        "metrics": {metric: estimate_to_json(of) for metric, of in each.measured.estimates.items()},
        "price": vars(each.price) if each.price else None,
        "cost_of_a_million": each.cost and estimate_to_json(each.cost),
        "stability": each.stability._asdict(),
        "letters": each.letters or None,
        "burstable": each.burst and {"what": each.burst[0], "source": each.burst[1], "past": each.past_credits},
        "cut": each.cut or None,
        "beaten_by": each.beaten_by or None,
    }


def to_json(choice: Choice) -> dict[str, Any]:
    """As JSON; times in ns."""
    return {
        "schema": "gotrace.choice/1",
        "service": choice.service,
        "ranked_by": choice.metric,
        "slos": [str(each) for each in choice.slos],
        "steps": [
            {
                "question": step.question,
                "kept": [each.name for each in step.kept],
                "cut": [{"type": each.name, "why": each.cut or f"beaten by {each.beaten_by}"} for each in step.cut],
            }
            for step in choice.steps
        ],
        "rules": [
            {"when": rule.when, "take": rule.take.name, "not_told_apart_from": rule.unsure or None} for rule in choice.rules
        ],
        "types": [type_to_json(each) for each in choice.candidates],
        "broken": [{"file": file, "problem": problem} for file, problem in choice.broken],
        "notes": choice.notes,
    }
