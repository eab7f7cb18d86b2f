"""Test cases beside a rule set: facts that somebody writes down, and what each rule must say about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from lifecycle.core.errors import Malformed
from lifecycle.core.severities import SEVERITIES
from lifecycle.policy.facts import (
    BaseState,
    ContentFacts,
    ExternalFact,
    FileFact,
    FindingFact,
    HeldFacts,
    ImageFacts,
    LicenceFacts,
    PlatformState,
    Stay,
)
from lifecycle.policy.images import Evaluate, judge_image
from lifecycle.policy.rulesets import Point, Rule
from lifecycle.policy.types import BaseTrust, BaseTrustFacts, SignatureFact, SignatureFacts, Status

CASES_MAX: Final = 200
_FIELDS: Final = frozenset({"name", "point", "facts", "expect", "allowed"})
_DIGEST: Final = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class Case:
    """One test case: facts, the point, the expected status by key of a rule, and whether all of it may pass."""

    name: str
    facts: Mapping[str, Any]
    point: Point = Point.EXECUTION
    expect: Mapping[str, str] = None  # type: ignore[assignment]  # set by case_of; {} expects nothing
    allowed: bool | None = None

    def as_json(self) -> dict[str, Any]:
        record = {"name": self.name, "point": self.point.value, "facts": dict(self.facts), "expect": dict(self.expect)}
        return record if self.allowed is None else record | {"allowed": self.allowed}


@dataclass(frozen=True, slots=True)
class CaseResult:
    """The differences between what a case expects and what the rules say; none when it passed."""

    name: str
    problems: tuple[str, ...]


def cases_of(records: Any) -> tuple[Case, ...]:
    """Return the test cases of a rule set. Raises Malformed with a sentence."""
    if not isinstance(records, (list, tuple)) or len(records) > CASES_MAX:
        raise Malformed(f"Test cases are a list of at most {CASES_MAX}.")
    return tuple(_case_of(record, number) for number, record in enumerate(records, start=1))


def _case_of(record: Any, number: int) -> Case:
    if not isinstance(record, Mapping) or set(record) - _FIELDS:
        raise Malformed(f"Test case {number}: the fields are {', '.join(sorted(_FIELDS))}.")
    name, facts = record.get("name") or f"case {number}", record.get("facts") or {}
    expect, allowed = record.get("expect") or {}, record.get("allowed")
    if not isinstance(name, str) or not isinstance(facts, Mapping) or not isinstance(expect, Mapping):
        raise Malformed(f"Test case {number}: the name is a text, facts and expect are objects.")
    if not all(isinstance(key, str) and value in set(Status) for key, value in expect.items()):
        raise Malformed(f"{name}: expect has a status for the key of each rule. One of {', '.join(Status)}.")
    if allowed is not None and not isinstance(allowed, bool):
        raise Malformed(f"{name}: allowed is true or false.")
    try:
        point = Point(record.get("point") or Point.EXECUTION)
    except ValueError:
        raise Malformed(f"{name}: point is one of {', '.join(Point)}.") from None
    case = Case(name, facts, point, expect, allowed)
    facts_of(case, datetime(2026, 1, 1))  # noqa: DTZ001 -- only to see that the facts can be read
    return case


def run_case(case: Case, rules: tuple[Rule, ...], now: datetime, *, evaluate: Evaluate) -> CaseResult:
    """Return what differs from the case's expectation."""
    results = {item.rule.key: item for item in judge_image(rules, facts_of(case, now), case.point, evaluate=evaluate)}
    problems = []
    for key, wanted in case.expect.items():
        if key not in results:
            problems.append(f"{key} is not judged at {case.point}")
        elif results[key].outcome.status != wanted:
            outcome = results[key].outcome
            problems.append(f"{key} is {outcome.status}, not {wanted}: {outcome.summary}")
    allowed = not any(item.blocks for item in results.values())
    if case.allowed is not None and case.allowed != allowed:
        problems.append("it is allowed" if allowed else "it is blocked by " + ", ".join(
            key for key, item in results.items() if item.blocks))  # fmt: skip
    return CaseResult(case.name, tuple(problems))


def facts_of(case: Case, now: datetime) -> ImageFacts:
    """Return the facts of a case. What it does not mention is unknown. Raises Malformed with a sentence."""
    record = dict(case.facts)
    try:
        facts = _facts(record, now)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Malformed(f"{case.name}: the facts cannot be read ({type(error).__name__}: {error}).") from None
    if record:
        raise Malformed(f"{case.name}: unknown facts: {', '.join(sorted(record))}.")
    return facts


def _facts(record: dict[str, Any], now: datetime) -> ImageFacts:
    def ago(days: float | None) -> datetime | None:
        return None if days is None else now - timedelta(days=days)

    held, signatures, trust = record.pop("held", None), record.pop("signatures", None), record.pop("base_trust", None)
    findings = record.pop("findings", None)
    files, malware, quarantines = record.pop("files", None), record.pop("malware", ""), record.pop("quarantines", None)
    external, due_lists = record.pop("external", None), record.pop("due_lists", None)
    licences, undeclared = record.pop("licences", None), record.pop("undeclared_licences", 0)
    return ImageFacts(
        record.pop("digest", _DIGEST),
        now,
        environment=record.pop("environment", ""),
        repository=record.pop("repository", ""),
        platforms=tuple(_platform(dict(item), ago) for item in record.pop("platforms", ())),
        missing_platforms=tuple(record.pop("missing_platforms", ())),
        findings=None if findings is None else tuple(_finding(dict(item), ago) for item in findings),
        held=None if held is None else HeldFacts(held["digest"], _pairs(held.get("findings"))),
        bases=tuple(
            BaseState(b.get("digest", _DIGEST), b["name"], b.get("is_current"), ago(b.get("days_behind")))
            for b in record.pop("bases", ())
        ),
        stays=tuple(_stay(dict(item), now) for item in record.pop("stays", ())),
        signatures=None if signatures is None else SignatureFacts(True, tuple(map(_signature, signatures))),
        base_trust=None if trust is None else BaseTrustFacts(BaseTrust(trust["status"])),
        contents=None if files is None else ContentFacts(tuple(map(_file, files)), malware=malware or "unknown"),
        licences=None
        if licences is None
        else LicenceFacts({item["name"]: tuple(item.get("packages", ("?",))) for item in licences}, int(undeclared)),
        kev_read_at=ago(record.pop("kev_days", None)),
        epss_scored_at=ago(record.pop("epss_days", None)),
        external=None if external is None else {item["check"]: _answer(item, now) for item in external},
        due_lists=None if due_lists is None else frozenset(str(name) for name in due_lists),
        quarantines=None if quarantines is None else tuple(str(item["reason"]) for item in quarantines),
    )


def _platform(item: dict[str, Any], ago: Any) -> PlatformState:
    ages = {"created_at": "age_days", "first_seen_at": "seen_days", "sbom_at": "sbom_days"}
    moments = {field: ago(item.pop(name, None)) for field, name in ages.items()}
    days = item.pop("supported_days", None)
    until = None if days is None else ago(-days).date()
    labels = {str(key): str(value) for key, value in item.pop("labels", {}).items()}
    return PlatformState(
        item.pop("digest", _DIGEST),
        item.pop("platform", "linux/amd64"),
        labels=labels,
        supported_until=until,
        **moments,
        **item,
    )


def _finding(item: dict[str, Any], ago: Any) -> FindingFact:
    severity = item.get("severity", "unknown")
    if severity not in SEVERITIES:
        raise ValueError(f"unknown severity {severity}")
    return FindingFact(
        item["advisory"],
        item.get("package", ""),
        item.get("type", ""),
        severity,
        item.get("fixed_version", ""),
        ago(item.get("age_days", 0)),
        exploited_on=ago(0).date() if item.get("is_exploited") else None,
        is_ransomware=bool(item.get("is_ransomware")),
        epss=None if item.get("epss") is None else float(item["epss"]),
        due_at=None if item.get("overdue_days") is None else ago(item["overdue_days"]),
    )


def _answer(item: Mapping[str, Any], now: datetime) -> ExternalFact:
    hours, has_passed = item.get("hours"), item.get("passed")
    at = None if hours is None else now - timedelta(hours=hours)
    return ExternalFact(item["check"], None if has_passed is None else bool(has_passed), at, item.get("message", ""))


def _file(item: Mapping[str, Any]) -> FileFact:
    return FileFact(item["kind"], item["path"], item.get("detail", ""))


def _pairs(items: Any) -> frozenset[tuple[str, str]] | None:
    return None if items is None else frozenset((item["advisory"], item.get("package", "")) for item in items)


def _stay(item: dict[str, Any], now: datetime) -> Stay:
    ended = now - timedelta(hours=item.get("left_hours", 0))
    since = ended - timedelta(hours=item["hours"])
    return Stay(item["environment"], since, ended if item.get("left_hours") else None)


def _signature(item: Mapping[str, Any]) -> SignatureFact:
    return SignatureFact("", "", "bundle", item.get("source", ""), item.get("key", ""), item.get("identity", ""),
                         item.get("issuer", ""), item.get("predicate_type", ""), item.get("builder_id", ""),
                         item.get("source_uri", ""))  # fmt: skip
