"""The rule about isolation. Without a pod, it judges what the image alone decides; admission judges pods."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lifecycle.policy.facts import ContentFacts, ImageFacts
from lifecycle.policy.isolation import CHECKS, IMAGE_CHECKS, judge_image
from lifecycle.policy.isolation_types import ImageConfig, Result
from lifecycle.policy.outcomes import Evidence, Outcome, does_not_apply, failed, passed, unknown
from lifecycle.policy.parameters import Values
from lifecycle.policy.rules import platforms_gap

_SETUID: Final = frozenset({"setuid", "setgid"})
_SHOWN: Final = 3
WHO: Final = "who builds the image"


def is_isolated(facts: ImageFacts, values: Values) -> Outcome:
    """The checks of the rule that are about images hold for each platform."""
    checks = [name for name in IMAGE_CHECKS if name in values["checks"]]
    if not checks:
        return does_not_apply("These checks are about pods. They are judged at admission.")
    if (gap := platforms_gap(facts)) is not None:
        return gap
    modes = dict.fromkeys(checks, "enforce")
    verdicts = [
        (platform.name, verdict)
        for platform in facts.platforms
        for verdict in judge_image(_with_files(platform.image, facts.contents), modes)
    ]
    bad = [(name, verdict) for name, verdict in verdicts if verdict.result is Result.FAIL]
    if bad:
        evidence = tuple(Evidence(f"{name}: {v.summary} {v.fix}") for name, v in bad)
        shown = " ".join(dict.fromkeys(v.summary for _, v in bad[:_SHOWN]))
        return failed(shown, WHO, evidence=evidence, failed=len(bad))
    open_checks = [verdict for _, verdict in verdicts if verdict.result is Result.UNKNOWN]
    if open_checks:
        first = open_checks[0]
        return unknown(f"{CHECKS[first.check].title}: {first.summary}", "a user with image.scan: rescan the image")
    return passed(f"The image passes {', '.join(checks)}.")


def _with_files(image: ImageConfig | None, contents: ContentFacts | None) -> ImageConfig:
    """Return the configuration with what the check of all platforms' files says about setuid files."""
    known = image or ImageConfig()
    if contents is None:
        return known
    has_some = any(file.kind in _SETUID for file in contents.found)
    if not has_some and (contents.problem or contents.cut & _SETUID):
        return known
    return replace(known, has_setuid=has_some)
