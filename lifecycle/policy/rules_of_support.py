"""The rule about the end of life of distributions: advisories end with the support, and so do fixes."""

from __future__ import annotations

from typing import Final

from lifecycle.policy.facts import ImageFacts
from lifecycle.policy.outcomes import Evidence, Outcome, failed, passed, unknown, waits
from lifecycle.policy.parameters import Values
from lifecycle.policy.rules import ADMIN, BUILDER, platforms_gap, plural

_TABLE: Final = "an admin: name the distribution in END_OF_LIFE_FILE"


def is_supported(facts: ImageFacts, values: Values) -> Outcome:
    """The distribution of each platform is supported today, and for some more days."""
    if (gap := platforms_gap(facts) or _unlisted(facts)) is not None:
        return gap
    wanted = values["min_days"] or 0
    today = facts.now.date()
    left = {
        platform.distro: (platform.supported_until - today).days
        for platform in facts.platforms
        if platform.distro and platform.supported_until is not None
    }
    short = {name: days for name, days in left.items() if days < wanted}
    if short:
        name, days = min(short.items(), key=lambda item: item[1])
        words = f"ended {plural(-days, 'day')} ago" if days < 0 else f"ends in {plural(days, 'day')}"
        evidence = tuple(Evidence(f"{name}: {days} days left") for name, days in sorted(short.items()))
        summary = f"The support of {name} {words}; {wanted} more days are asked for."
        return failed(summary, BUILDER, evidence=evidence, days=days, wanted=wanted)
    if (gap := _undated(facts, values)) is not None:
        return gap
    if not left:
        return passed("The image has no distribution.")
    name, days = min(left.items(), key=lambda item: item[1])
    return passed(f"{name} is supported for {plural(days, 'more day')}.", days=days)


def _unlisted(facts: ImageFacts) -> Outcome | None:
    lacking = next((platform for platform in facts.platforms if platform.sbom_at is None), None)
    if lacking is None:
        return None
    if lacking.scan_problem:
        return unknown(f"The scan of {lacking.name} failed: {lacking.scan_problem}", ADMIN)
    return waits(f"The packages of {lacking.name} are not listed yet.")


def _undated(facts: ImageFacts, values: Values) -> Outcome | None:
    for platform in facts.platforms:
        if not platform.distro and not values["accept_none"]:
            return unknown(f"The distribution of {platform.name} is not known.", BUILDER)
        if platform.distro and platform.supported_until is None:
            return unknown(f"Nobody knows how long {platform.distro} is supported.", _TABLE)
    return None
