"""The rule about external checks: a service that people run says yes, in a reply that it signed."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lifecycle.policy.facts import ImageFacts
from lifecycle.policy.outcomes import Outcome, failed, passed, unknown, waits
from lifecycle.policy.parameters import Values

_OWNER: Final = "the owner of the rule: name a check that exists"
_SERVICE: Final = "who runs the service of the check"


def check_passed(facts: ImageFacts, values: Values) -> Outcome:
    """The service said yes about this digest, not too long ago. Not asked, no reply, or an old one is not a pass."""
    name = values["check"]
    if facts.external is None or (fact := facts.external.get(name)) is None:
        return unknown(f"There is no check {name} of the site or of this team.", _OWNER)
    if fact.at is None:
        if fact.problem:
            return unknown(f"{name} has not answered: {fact.problem}", _SERVICE)
        return waits(f"{name} was not asked about this image yet.")
    if fact.has_passed is None:
        return unknown(f"{name} cannot say yet: {fact.message}", _SERVICE)
    when, limit = f"{fact.at:%Y-%m-%d %H:%M} UTC", values["max_age_hours"]
    if facts.age(fact.at) > timedelta(hours=limit):
        why = f" Since then: {fact.problem}" if fact.problem else ""
        return unknown(f"{name} answered at {when}; at most {limit} hours ago are allowed.{why}", _SERVICE)
    # The time of the answer, not its age: the sentence stays the same until there is another answer.
    said = f"{name} at {when}: {fact.message}"
    return passed(said) if fact.has_passed else failed(said, _SERVICE)
