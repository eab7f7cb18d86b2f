"""The rule about due dates. `evidence.policy_facts` gives each finding its date, by the table that admins edit."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lifecycle.policy.facts import ImageFacts
from lifecycle.policy.outcomes import Outcome, failed, unknown
from lifecycle.policy.parameters import Values
from lifecycle.policy.rules import (
    BUILDER,
    counting_from,
    evidence_of,
    findings_gap,
    first_names,
    plural,
    with_unjudged,
)

_LISTS: Final = {
    "kev": "list of known exploited vulnerabilities (KEV)",
    "epss": "file of exploit scores (EPSS)",
}


def not_overdue(facts: ImageFacts, values: Values) -> Outcome:
    """No finding from a severity on is past its due date, and the lists that the due dates need were loaded."""
    if (gap := findings_gap(facts, values)) is not None:
        return gap
    if facts.due_lists is None:
        return unknown("The due dates were not read.", "an operator: look at the log")
    counting, grace = counting_from(values["severity"]), timedelta(days=values["grace_days"] or 0)
    late = [
        found
        for found in facts.findings or ()
        if found.severity in counting
        and (found.fixed_version or not values["fixable_only"])
        and found.due_at is not None
        and found.due_at + grace < facts.now
    ]
    if late:
        evidence = evidence_of(late)
        days = max(facts.days_since(found.due_at) for found in late if found.due_at is not None)
        names = first_names(evidence, len(late))
        summary = f"{plural(len(late), 'finding')} past the due date, by up to {plural(days, 'day')}: {names}."
        return failed(summary, BUILDER, evidence=evidence, findings=len(late), allowed=0, days=days)
    read = {"kev": facts.kev_read_at, "epss": facts.epss_scored_at}
    missing = [name for name in sorted(facts.due_lists) if read[name] is None]
    if missing and not values["accept_without_lists"]:
        summary = f"The due dates need a {_LISTS[missing[0]]}, and none was loaded yet."
        return unknown(summary, "an admin: load the feed, or the owner of the rule: accept due dates without it")
    return with_unjudged(facts, f"No finding from {values['severity']} on is past its due date.", findings=0)
