"""The rules about the files in an image, as `sbom.contents` checks them, and about quarantines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lifecycle.core.patterns import matches
from lifecycle.policy.facts import ImageFacts
from lifecycle.policy.outcomes import Evidence, Outcome, failed, passed, unknown
from lifecycle.policy.parameters import Values

WHO_BUILDS: Final = "who builds the image"
WHO_SCANS: Final = "a user with image.scan: rescan the image"
_SHOWN: Final = 3


def without(*kinds: str, words: str) -> Callable[[ImageFacts, Values], Outcome]:
    """Return the rule that no file of these kinds is in the image. `words` name them: "private keys or credentials"."""

    def judge(facts: ImageFacts, values: Values) -> Outcome:
        return _judge(facts, values, kinds, words)

    return judge


def _judge(facts: ImageFacts, values: Values, kinds: tuple[str, ...], words: str) -> Outcome:
    contents = facts.contents
    if contents is None:
        return unknown("The files of the image were not checked yet.", WHO_SCANS)
    allowed = values.get("except", ())
    found = [
        file
        for file in contents.found
        if file.kind in kinds and not any(matches(pattern, file.path) for pattern in allowed)
    ]
    if found:
        evidence = tuple(Evidence(f"{file.path} ({file.detail or file.kind})", file.path, file.kind) for file in found)
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        shown = ", ".join(file.path for file in found[:_SHOWN])
        return failed(f"The image has {words}: {shown}{more}.", WHO_BUILDS, evidence=evidence, files=len(found))
    if contents.problem:
        return unknown(contents.problem, WHO_SCANS)
    if contents.cut & set(kinds):
        return unknown("There are more such files than are listed, so not all could be compared.", WHO_BUILDS)
    return passed(f"The image has no {words}.")


def no_malware(facts: ImageFacts, values: Values) -> Outcome:
    """No file of the image matches a signature of the malware scanner, and each file was looked at."""
    outcome = _judge(facts, values, ("malware",), "malware")
    if not outcome.is_open or facts.contents is None:
        return outcome
    if facts.contents.malware == "off":
        return unknown("No malware scanner is set up.", "an admin: set CLAMD")
    if facts.contents.malware != "clean":
        return unknown(facts.contents.malware_problem or "The malware scanner did not look at every file.", WHO_SCANS)
    return outcome


def not_quarantined(facts: ImageFacts, _values: Values) -> Outcome:
    """No quarantine covers the image."""
    if facts.quarantines is None:
        return unknown("The quarantines were not read.", "Gravingdock")
    if not facts.quarantines:
        return passed("No quarantine covers the image.")
    evidence = tuple(Evidence(text) for text in facts.quarantines)
    who = "a user with image.quarantine: ask for the release; another user lifts it"
    return failed(" ".join(facts.quarantines), who, evidence=evidence, quarantines=len(facts.quarantines))
