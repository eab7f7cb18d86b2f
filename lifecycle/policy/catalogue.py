"""All kinds of rules, also those that wait for a source of facts. The editor and the reference list this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lifecycle.core.errors import Malformed
from lifecycle.core.severities import HIGH, LOW
from lifecycle.policy import (
    rules,
    rules_external,
    rules_of_content,
    rules_of_due_dates,
    rules_of_exploits,
    rules_of_isolation,
    rules_of_licences,
    rules_of_pentests,
    rules_of_support,
    rules_of_trust,
)
from lifecycle.policy.facts import ImageFacts, Need
from lifecycle.policy.isolation import CHECKS
from lifecycle.policy.outcomes import Outcome
from lifecycle.policy.parameters import Parameter, Stricter, Type, Values

Judge = Callable[[ImageFacts, Values], Outcome]
CEL: Final = "cel"
ISOLATION: Final = "isolation"
EXTERNAL: Final = "external"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of rule. With `waits_for`, its facts are not there yet, and it cannot warn or enforce."""

    name: str
    title: str
    help: str
    parameters: tuple[Parameter, ...] = ()
    needs: frozenset[Need] = frozenset()
    judge: Judge | None = None
    waits_for: str = ""
    is_for_artifacts: bool = False  # also judges what has no platforms, packages and files, such as a Helm chart

    def clean(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters in their stored form, with defaults. Raises Malformed for unknown or wrong ones."""
        known = {parameter.name for parameter in self.parameters}
        if extra := sorted(set(values) - known):
            raise Malformed(f"{self.title} has no parameter {extra[0]}. Known: {', '.join(sorted(known)) or 'none'}.")
        return {parameter.name: parameter.clean(values.get(parameter.name)) for parameter in self.parameters}


_SEVERITY: Final = Parameter("severity", Type.SEVERITY, "From this severity on", Stricter.MILDER, HIGH)
_ACCEPT: Final = Parameter(
    "accept_unjudged",
    Type.FLAG,
    "Accept packages that could not be judged",
    Stricter.OFF,
    False,
    "Without this, an image with such packages does not pass: their findings are unknown.",
)


def _number(name: str, title: str, stricter: Stricter, default: int | None, **more: Any) -> Parameter:
    return Parameter(name, Type.NUMBER, title, stricter, default, **more)


_LIST_DAYS: Final = _number("max_list_days", "The list may be this many days old", Stricter.LOWER, 7)
_PATTERNS: Final = "One a line; * matches any characters."


_EXCEPT: Final = Parameter(
    "except", Type.TEXTS, "Paths that are accepted", Stricter.FEWER, (), f"Such as /usr/bin/sudo. {_PATTERNS}"
)


def _signers(stricter: Stricter) -> Parameter:
    words = "One a line: the name of a trusted source, the fingerprint of a key (sha256:...), or `identity issuer`."
    return Parameter("signers", Type.TEXTS, "Signers", stricter, (), words, is_required=True)


_BUILT: Final = (
    Kind(
        "findings",
        "No findings",
        "No open finding from a severity on: perhaps only fixable ones, or only ones known for some days.",
        (
            _SEVERITY,
            Parameter("fixable_only", Type.FLAG, "Only findings with a fix", Stricter.OFF, False),
            _number("older_than_days", "Known for at least this many days", Stricter.LOWER, 0),
            _number("maximum", "Number of findings allowed", Stricter.LOWER, 0),
            _ACCEPT,
        ),
        frozenset({Need.FINDINGS}),
        rules.no_finding,
    ),
    Kind(
        "kev",
        "Not known to be exploited",
        "No open finding is in a list of known exploited vulnerabilities (KEV), and the list was read lately.",
        (
            Parameter("ransomware_only", Type.FLAG, "Only those used in ransomware campaigns", Stricter.OFF, False),
            Parameter("fixable_only", Type.FLAG, "Only findings with a fix", Stricter.OFF, False),
            _LIST_DAYS,
            _ACCEPT,
        ),
        frozenset({Need.FINDINGS, Need.EXPLOITS}),
        rules_of_exploits.not_exploited,
    ),
    Kind(
        "due_date",
        "No finding past its due date",
        "No open finding is older than the table of due dates allows, where the image runs and is asked for.",
        (
            Parameter("severity", Type.SEVERITY, "From this severity on", Stricter.MILDER, LOW),
            Parameter("fixable_only", Type.FLAG, "Only findings with a fix", Stricter.OFF, False),
            _number("grace_days", "Days after the due date that are accepted", Stricter.LOWER, 0),
            Parameter(
                "accept_without_lists",
                Type.FLAG,
                "Accept due dates without KEV or EPSS",
                Stricter.OFF,
                False,
                "Without this, an image does not pass while the table needs a list that was never loaded.",
            ),
            _ACCEPT,
        ),
        frozenset({Need.FINDINGS, Need.EXPLOITS, Need.DUE_DATES}),
        rules_of_due_dates.not_overdue,
    ),
    Kind(
        "epss",
        "Exploit probability",
        "No open finding from a severity on has an exploit score (EPSS) from a percentage on.",
        (
            _number("percent", "EPSS score in percent, from this on", Stricter.LOWER, 10, is_required=True),
            _SEVERITY,
            Parameter("fixable_only", Type.FLAG, "Only findings with a fix", Stricter.OFF, False),
            Parameter(
                "accept_unscored",
                Type.FLAG,
                "Accept findings without a score",
                Stricter.OFF,
                False,
                "New CVEs get their first score after a day or two; advisories without a CVE id never get one.",
            ),
            _LIST_DAYS,
            _ACCEPT,
        ),
        frozenset({Need.FINDINGS, Need.EXPLOITS}),
        rules_of_exploits.not_probable,
    ),
    Kind(
        "no_worse",
        "No worse than now",
        "No finding that the image in the environment does not have: a release never adds risk.",
        (_SEVERITY, _ACCEPT),
        frozenset({Need.FINDINGS, Need.HELD}),
        rules.no_worse,
    ),
    Kind(
        "sbom",
        "SBOM present and fresh",
        "The packages of each platform are listed, at most some days ago.",
        (_number("max_age_days", "Listed at most this many days ago", Stricter.LOWER, None),),
        frozenset(),
        rules.has_sbom,
    ),
    Kind(
        "end_of_life",
        "Distribution is supported",
        "The distribution of each platform still gets free security updates, for some days at least.",
        (
            _number("min_days", "Supported for at least this many more days", Stricter.HIGHER, 0),
            Parameter("accept_none", Type.FLAG, "Accept images without a distribution", Stricter.OFF, False),
        ),
        frozenset(),
        rules_of_support.is_supported,
    ),
    Kind(
        "base_current",
        "Base is current",
        "Each direct base is the newest of its tag, or at most some days behind.",
        (_number("max_days_behind", "Days that it may be behind", Stricter.LOWER, 0),),
        frozenset({Need.BASES}),
        rules.base_is_current,
    ),
    Kind(
        "image_age",
        "Image age",
        "The image was created at most some days ago, as its configuration says.",
        (_number("max_days", "Created at most this many days ago", Stricter.LOWER, 90, is_required=True),),
        frozenset(),
        rules.image_age,
    ),
    Kind(
        "rebuilt_within",
        "Rebuilt lately",
        "The image was first pushed at most some days ago. This also works for builds with fixed dates.",
        (_number("max_days", "First pushed at most this many days ago", Stricter.LOWER, 30, is_required=True),),
        frozenset(),
        rules.rebuilt_within,
    ),
    Kind(
        "not_root",
        "Not root",
        "The image does not run as root.",
        (Parameter("number_only", Type.FLAG, "The user must be a number", Stricter.ON, False),),
        frozenset(),
        rules.not_root,
    ),
    Kind(
        "labels",
        "Labels present",
        "The image has these labels.",
        (
            Parameter(
                "labels",
                Type.TEXTS,
                "Labels",
                Stricter.MORE,
                (),
                "One a line: key, or key=pattern, in which * matches any characters.",
                is_required=True,
            ),
        ),
        frozenset(),
        rules.has_labels,
    ),
    Kind(
        "platforms",
        "Platforms complete",
        "Every platform of the image is in the registry, and these are among them.",
        (Parameter("platforms", Type.TEXTS, "Platforms", Stricter.MORE, (), "One a line, such as linux/arm64."),),
        frozenset(),
        rules.platforms_complete,
    ),
    Kind(
        "promoted",
        "Promoted and soaked",
        "This digest was in another environment for some hours without a break.",
        (
            Parameter("environment", Type.TEXT, "Environment", Stricter.SAME, is_required=True),
            _number("hours", "Hours in it", Stricter.HIGHER, 0),
        ),
        frozenset({Need.STAYS}),
        rules.soaked,
        is_for_artifacts=True,
    ),
    Kind(
        "signed_by_any",
        "Signed by one of",
        "At least one of these signed the image.",
        (_signers(Stricter.FEWER),),
        frozenset({Need.SIGNATURES}),
        rules_of_trust.signed_by_any,
        is_for_artifacts=True,
    ),
    Kind(
        "signed_by_all",
        "Signed by all of",
        "Each of these signed the image.",
        (_signers(Stricter.MORE),),
        frozenset({Need.SIGNATURES}),
        rules_of_trust.signed_by_all,
        is_for_artifacts=True,
    ),
    Kind(
        "provenance",
        "Provenance",
        "A verified SLSA provenance names one of these builders and one of these sources.",
        (
            Parameter("builders", Type.TEXTS, "Builders", Stricter.FEWER, (), _PATTERNS, is_required=True),
            Parameter("sources", Type.TEXTS, "Sources of the code", Stricter.FEWER, ("*",), _PATTERNS),
        ),
        frozenset({Need.SIGNATURES}),
        rules_of_trust.has_provenance,
        is_for_artifacts=True,
    ),
    Kind(
        "base_trusted",
        "Base from a trusted source",
        "Every direct base is from a trusted source, or the image is from one itself.",
        (),
        frozenset({Need.BASE_TRUST}),
        rules_of_trust.base_is_trusted,
    ),
    Kind(
        "quarantine",
        "Not quarantined",
        "No quarantine covers the image. Promotions are always stopped by one; this rule is for other points.",
        (),
        frozenset({Need.QUARANTINES}),
        rules_of_content.not_quarantined,
        is_for_artifacts=True,
    ),
    Kind(
        "pen_test",
        "No open pen-test finding",
        "No pen-test finding from a severity on is open: of the image, of its bases, or of an earlier image that was "
        "not tested again.",
        (
            _SEVERITY,
            Parameter("accept_untested", Type.FLAG, "Accept images without a full pen test", Stricter.OFF, False),
        ),
        frozenset({Need.PENTESTS}),
        rules_of_pentests.no_pentest_finding,
    ),
    Kind(
        "secrets",
        "No secrets",
        "No file has a private key or a credential in it, as far as the kept patterns know.",
        (_EXCEPT,),
        frozenset({Need.CONTENTS}),
        rules_of_content.without("private_key", "credential", words="private keys or credentials"),
    ),
    Kind(
        "setuid",
        "No setuid files",
        "No file runs with the rights of its owner or its group (setuid, setgid).",
        (_EXCEPT,),
        frozenset({Need.CONTENTS}),
        rules_of_content.without("setuid", "setgid", words="setuid or setgid files"),
    ),
    Kind(
        "file_modes",
        "No world-writable files or devices",
        "No file, and no folder without the sticky bit, can be written by everybody, and there is no device node.",
        (_EXCEPT,),
        frozenset({Need.CONTENTS}),
        rules_of_content.without("world_writable", "device", words="world-writable files or devices"),
    ),
    Kind(
        "malware",
        "No malware",
        "The malware scanner looked at every file and found nothing. Without a scanner, no image passes.",
        (_EXCEPT,),
        frozenset({Need.CONTENTS}),
        rules_of_content.no_malware,
    ),
    Kind(
        "unowned",
        "No unowned programs",
        "Every program and script is from a package, so that advisories can be about it.",
        (_EXCEPT,),
        frozenset({Need.CONTENTS}),
        rules_of_content.without("unowned", words="programs that no package owns"),
    ),
    Kind(
        ISOLATION,
        "Isolation",
        "These isolation checks hold: at promotion those about the image, at admission all of them. "
        "Several rules give different checks different modes.",
        (
            Parameter(
                "checks",
                Type.TEXTS,
                "Checks",
                Stricter.MORE,
                (),
                "One a line, such as run-as-root or setuid. The page Isolation lists them.",
                is_required=True,
                choices=tuple(CHECKS),
            ),
        ),
        frozenset({Need.ISOLATION, Need.CONTENTS}),
        rules_of_isolation.is_isolated,
    ),
    Kind(
        "licences",
        "No denied licence",
        "No package declares a licence that is denied. With OR, one allowed licence is enough.",
        (
            Parameter(
                "deny",
                Type.TEXTS,
                "Denied licences",
                Stricter.MORE,
                (),
                f"Such as AGPL-3.0*. {_PATTERNS}",
                is_required=True,
            ),
            Parameter("accept_undeclared", Type.FLAG, "Accept packages that declare no licence", Stricter.OFF, False),
        ),
        frozenset({Need.LICENCES}),
        rules_of_licences.no_denied,
    ),
    Kind(
        EXTERNAL,
        "External check",
        "A service of yours says yes about this digest, in a signed reply. No reply, or an old one, does not pass.",
        (
            Parameter(
                "check",
                Type.TEXT,
                "Check",
                Stricter.SAME,
                help="Such as site:scanner or team:shop:scanner. Set it up under Policies, External checks.",
                is_required=True,
            ),
            _number("max_age_hours", "Answered at most this many hours ago", Stricter.LOWER, 24, is_required=True),
        ),
        frozenset({Need.EXTERNAL}),
        rules_external.check_passed,
        is_for_artifacts=True,
    ),
    Kind(
        CEL,
        "Expression",
        "A CEL expression over the same facts is true.",
        (
            Parameter("expression", Type.TEXT, "Expression", Stricter.SAME, is_required=True),
            Parameter("message", Type.TEXT, "What to tell the requester", Stricter.SAME, ""),
        ),
        frozenset(Need),
    ),
)
_WAITING: Final = (
    ("vex", "VEX statements", "VEX statements about findings"),
    ("running", "No worse than what runs", "reports of clusters about what runs"),
)

KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in _BUILT} | {
    name: Kind(name, title, f"Waits for {source}, which Gravingdock does not have yet.", waits_for=source)
    for name, title, source in _WAITING
}
