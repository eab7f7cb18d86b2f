"""The rules: one small pure function each, from facts and parameters to an outcome. Unknown is never a pass."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Final

from lifecycle.core.patterns import matches
from lifecycle.core.severities import SEVERITIES, UNKNOWN
from lifecycle.policy.facts import FindingFact, ImageFacts, PlatformState, severity_rank
from lifecycle.policy.outcomes import (
    EVIDENCE_MAX,
    Evidence,
    Outcome,
    accepted,
    does_not_apply,
    failed,
    passed,
    unknown,
    waits,
)
from lifecycle.policy.parameters import Values
from lifecycle.policy.types import Status

BUILDER: Final = "who builds the image"
ADMIN: Final = "an admin: retry the scan under Jobs"
_NAMES_MAX: Final = 3
_ROOT: Final = frozenset({"", "0", "root"})


def no_finding(facts: ImageFacts, values: Values) -> Outcome:
    """No finding from a severity on, perhaps only fixable ones, or ones that we have known for too long."""
    if (gap := findings_gap(facts, values)) is not None:
        return gap
    allowed, days = values["maximum"] or 0, values["older_than_days"] or 0
    counting, fixable_only, latest = (
        counting_from(values["severity"]),
        values["fixable_only"],
        facts.now - timedelta(days),
    )
    counted = [
        found
        for found in facts.findings or ()
        if found.severity in counting and (found.fixed_version or not fixable_only) and found.first_seen <= latest
    ]
    words = _words_of_limit(values, days)
    if len(counted) > allowed:
        more = f" {allowed} allowed." if allowed else ""
        evidence = evidence_of(counted)
        summary = f"{plural(len(counted), 'finding')}: {first_names(evidence, len(counted))}. The rule: {words}.{more}"
        return failed(summary, BUILDER, evidence=evidence, findings=len(counted), allowed=allowed)
    summary = f"{plural(len(counted), 'finding')}, {allowed} allowed: {words}." if allowed else f"None: {words}."
    return with_unjudged(facts, summary, findings=len(counted), allowed=allowed)


def no_worse(facts: ImageFacts, values: Values) -> Outcome:
    """No finding that what the environment holds now does not have."""
    if not facts.environment:
        return does_not_apply("There is no environment to compare with.")
    if facts.held is None:
        return does_not_apply(f"{facts.environment} holds nothing of {facts.repository or 'this repository'} yet.")
    if (gap := findings_gap(facts, values)) is not None:
        return gap
    held = facts.held.findings
    if held is None:
        return unknown(f"The findings of what {facts.environment} holds are unknown.", ADMIN)
    counting = counting_from(values["severity"])
    new = [
        found
        for found in facts.findings or ()
        if found.severity in counting and (found.advisory, found.package) not in held
    ]
    if new:
        evidence = evidence_of(new)
        names = first_names(evidence, len(new))
        summary = f"{plural(len(new), 'finding')} that {facts.environment} does not have now: {names}."
        return failed(summary, BUILDER, evidence=evidence, new=len(new))
    return with_unjudged(facts, f"No new finding from {values['severity']} on.", new=0)


def has_sbom(facts: ImageFacts, values: Values) -> Outcome:
    """The packages of each platform are listed, and the list is fresh."""
    if (gap := platforms_gap(facts)) is not None:
        return gap
    lacking = [platform for platform in facts.platforms if platform.sbom_at is None]
    broken = [platform for platform in lacking if platform.scan_problem]
    if broken:
        return unknown(f"The scan of {broken[0].name} failed: {broken[0].scan_problem}", ADMIN)
    if lacking:
        return waits(f"The packages of {_some(p.name for p in lacking)} are not listed yet.")
    listed = [platform.sbom_at for platform in facts.platforms if platform.sbom_at is not None]
    days = facts.days_since(min(listed))
    limit = values["max_age_days"]
    if limit is not None and days > limit:
        summary = f"The packages were listed {plural(days, 'day')} ago; at most {limit} allowed."
        return failed(summary, "anyone with image.scan: scan it again", days=days, allowed=limit)
    return passed(f"Listed {plural(days, 'day')} ago.", days=days)


def base_is_current(facts: ImageFacts, values: Values) -> Outcome:
    """Each direct base is the newest of its tag, or at most some days behind."""
    if not facts.bases:
        return unknown("No base of this image is known.", "who builds the image: declare its base")
    limit = values["max_days_behind"] or 0
    late = [base for base in facts.bases if base.is_current is False]
    too_late = [
        base for base in late if base.behind_since is None or facts.age(base.behind_since) > timedelta(days=limit)
    ]
    if too_late:
        behind = [facts.days_since(base.behind_since) for base in too_late if base.behind_since]
        most = max(behind, default=0)
        summary = f"{_some(base.name for base in too_late)}: {plural(most, 'day')} behind, {limit} allowed."
        evidence = tuple(Evidence(base.name) for base in too_late)
        return failed(summary, "who builds the image: rebuild it", evidence=evidence, days=most, allowed=limit)
    unclear = [base for base in facts.bases if base.is_current is None]
    if unclear:
        return unknown(f"No tag ever pointed to the base {unclear[0].name}, so its age is unknown.", BUILDER)
    if late:
        days = max(facts.days_since(base.behind_since) for base in late if base.behind_since)
        return passed(f"{plural(days, 'day')} behind, {limit} allowed.", days=days, allowed=limit)
    return passed("The base is current.", days=0, allowed=limit)


def image_age(facts: ImageFacts, values: Values) -> Outcome:
    """The configuration of each platform says that it was created at most some days ago."""
    return _recent(facts, values, lambda platform: platform.created_at, "Created")


def rebuilt_within(facts: ImageFacts, values: Values) -> Outcome:
    """Each platform came to us at most some days ago: a rebuild has a new digest, also when its dates are fixed."""
    return _recent(facts, values, lambda platform: platform.first_seen_at, "First seen")


def _recent(facts: ImageFacts, values: Values, of: Callable[[PlatformState], datetime | None], verb: str) -> Outcome:
    if (gap := platforms_gap(facts)) is not None:
        return gap
    moments = [of(platform) for platform in facts.platforms]
    known = [moment for moment in moments if moment is not None]
    limit = values["max_days"]
    if known and (age := facts.age(min(known))) > timedelta(days=limit):
        summary = f"{verb} {plural(age.days, 'day')} ago; at most {limit} allowed."
        return failed(summary, "who builds the image: rebuild it", days=age.days, allowed=limit)
    if len(known) < len(moments):
        return unknown("The date of a platform is unknown.", BUILDER)
    days = facts.days_since(min(known))
    return passed(f"{verb} {plural(days, 'day')} ago, at most {limit} allowed.", days=days, allowed=limit)


def not_root(facts: ImageFacts, values: Values) -> Outcome:
    """The configuration of each platform names a user that is not root."""
    if (gap := platforms_gap(facts)) is not None:
        return gap
    users = {platform.name: _user_of(platform) for platform in facts.platforms}
    root = [name for name, user in users.items() if user is not None and user in _ROOT]
    if root:
        evidence = tuple(Evidence(name) for name in root)
        return failed(f"{_some(root)}: runs as root.", "who builds the image: set USER", evidence=evidence)
    if values["number_only"]:
        named = [name for name, user in users.items() if user is not None and not user.isdigit()]
        if named:
            summary = f"{_some(named)}: the user is a name. Clusters can check only a number."
            return failed(summary, "who builds the image: set USER to a number")
    if any(user is None for user in users.values()):
        return unknown("The configuration of a platform is unknown.", BUILDER)
    return passed(f"Runs as {_some(sorted({user for user in users.values() if user}))}.")


def _user_of(platform: PlatformState) -> str | None:
    """Return the user without its group; None when the configuration is unknown. "00" is root too."""
    if platform.user is None:
        return None
    user = platform.user.partition(":")[0].strip()
    return str(int(user)) if user.isascii() and user.isdigit() else user


def has_labels(facts: ImageFacts, values: Values) -> Outcome:
    """Each platform has these labels, perhaps with a value that matches a pattern (`key=pattern`)."""
    if (gap := platforms_gap(facts)) is not None:
        return gap
    if any(platform.user is None for platform in facts.platforms):
        return unknown("The configuration of a platform is unknown.", BUILDER)
    lacking = sorted(
        {entry for entry in values["labels"] for platform in facts.platforms if not _has_label(platform, entry)}
    )
    if lacking:
        evidence = tuple(Evidence(entry) for entry in lacking)
        summary = f"Missing: {_some(lacking)}."
        return failed(summary, "who builds the image: add the labels", evidence=evidence, missing=len(lacking))
    return passed(f"Present: {_some(values['labels'])}.")


def _has_label(platform: PlatformState, entry: str) -> bool:
    key, equals, pattern = entry.partition("=")
    value = platform.labels.get(key)
    return bool(value) and (not equals or matches(pattern, str(value)))


def platforms_complete(facts: ImageFacts, values: Values) -> Outcome:
    """Every platform of the index is in the registry, and these are among them."""
    names = {platform.platform for platform in facts.platforms if platform.is_known}
    absent = [platform.name for platform in facts.platforms if not platform.is_known]
    absent += [*facts.missing_platforms, *(name for name in values["platforms"] if name not in names)]
    if absent or not facts.platforms:
        missing = sorted(set(absent)) or ["all platforms"]
        evidence = tuple(Evidence(name) for name in missing)
        return failed(f"Missing: {_some(missing)}.", "push the missing platforms", evidence=evidence)
    return passed(f"{_some(sorted(name for name in names if name)) or 'One platform'}.", platforms=len(names))


def soaked(facts: ImageFacts, values: Values) -> Outcome:
    """This digest was in another environment for some hours without a break."""
    place, hours = values["environment"], values["hours"] or 0
    stays = [stay for stay in facts.stays if stay.environment == place]
    if not stays:
        return failed(f"It was never in {place}.", f"promotion to {place}", hours=0, required=hours)
    longest = max((stay.until or facts.now) - stay.since for stay in stays)
    spent = max(0, int(longest.total_seconds() // 3600))
    if longest >= timedelta(hours=hours):
        return passed(f"Was in {place} for {plural(hours, 'hour')} or longer.", required=hours)
    if any(stay.until is None for stay in stays):
        start = max(stay.since for stay in stays if stay.until is None)
        at = f"{start + timedelta(hours=hours):%Y-%m-%d %H:%M} UTC"
        summary = f"It must stay in {place} for {plural(hours, 'hour')}: until {at}."
        return Outcome(Status.PENDING, summary, ("time",), {"required": hours})
    summary = f"It left {place} after {plural(spent, 'hour')}; {hours} required."
    return failed(summary, f"promotion to {place}", hours=spent, required=hours)


def findings_gap(facts: ImageFacts, values: Values) -> Outcome | None:
    """Return the outcome while the findings are unknown, or when packages that could not be judged are not accepted."""
    if (gap := platforms_gap(facts)) is not None:
        return gap
    broken = [platform for platform in facts.platforms if platform.sbom_at is None and platform.scan_problem]
    if broken:
        return unknown(f"The scan of {broken[0].name} failed: {broken[0].scan_problem}", ADMIN)
    if facts.findings is None or any(platform.sbom_at is None for platform in facts.platforms):
        return waits("The scan has not finished.")
    if not all(platform.is_matched for platform in facts.platforms):
        return waits("Packages are being checked against advisories.")
    unclear = [platform for platform in facts.platforms if platform.unjudged]
    if unclear and not values["accept_unjudged"]:
        words = unclear[0].unjudged
        summary = f"{unclear[0].name}: {words}. Their findings are unknown."
        return unknown(summary, "the owner of the rule: accept unjudged packages, or a waiver")
    return None


def with_unjudged(facts: ImageFacts, summary: str, **counts: int) -> Outcome:
    """Return a pass, or an acceptance that names what could not be judged."""
    unclear = [platform for platform in facts.platforms if platform.unjudged]
    if not unclear:
        return passed(summary, **counts)
    return accepted(f"{summary} {unclear[0].name}: {unclear[0].unjudged}. The rule accepts this.", **counts)


def platforms_gap(facts: ImageFacts) -> Outcome | None:
    if not facts.platforms:
        return unknown("No platform of this image is known.", "push the missing platforms")
    return None


@cache
def counting_from(lowest: str) -> frozenset[str]:
    """Return the severities from `lowest` on. Unknown is among them: it can be a severe one."""
    return frozenset({UNKNOWN, *(each for each in SEVERITIES if severity_rank(each) <= severity_rank(lowest))})


def _words_of_limit(values: Values, days: int) -> str:
    words = f"no {'fixable ' if values['fixable_only'] else ''}finding from {values['severity']} on"
    return f"{words} known for {plural(days, 'day')} or longer" if days else words


def evidence_of(found: Iterable[FindingFact]) -> tuple[Evidence, ...]:
    """Return the most urgent ones. An image can have thousands, and nobody is shown more than these."""
    ordered = heapq.nsmallest(EVIDENCE_MAX, found, key=_urgency)
    return tuple(Evidence(f"{f.advisory} in {f.package}", f.advisory, f.package) for f in ordered)


def first_names(evidence: Sequence[Evidence], count: int) -> str:
    """Return the first names of `count` findings, and the number of the others."""
    more = f" and {count - _NAMES_MAX} more" if count > _NAMES_MAX else ""
    return ", ".join(item.text for item in evidence[:_NAMES_MAX]) + more


def _urgency(found: FindingFact) -> tuple[int, str, str]:
    return severity_rank(found.severity), found.advisory, found.package


def plural(number: int, word: str) -> str:
    """Return the number with its word: "1 day", "1,200 days"."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _some(names: Iterable[str]) -> str:
    """Return at most three of the names, and the number of the others."""
    listed = list(names)
    more = f" and {len(listed) - _NAMES_MAX} more" if len(listed) > _NAMES_MAX else ""
    return ", ".join(listed[:_NAMES_MAX]) + more
