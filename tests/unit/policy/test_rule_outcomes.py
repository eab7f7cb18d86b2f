"""What each rule says in full: its sentence, its numbers, its evidence, and who can help."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from lifecycle.policy.catalogue import KINDS
from lifecycle.policy.facts import (
    BaseState,
    ContentFacts,
    ExternalFact,
    FileFact,
    HeldFacts,
    LicenceFacts,
    PentestFact,
    PentestFacts,
    Stay,
)
from lifecycle.policy.isolation_types import ImageConfig
from lifecycle.policy.outcomes import EVIDENCE_MAX, Evidence, Outcome, failed
from lifecycle.policy.types import BaseFact, BaseTrust, BaseTrustFacts, SignatureFact, SignatureFacts, Status
from tests.unit.policy.image_facts import GOOD, NOW, PLATFORM, ago, finding, with_findings, with_platform

BUILDER = "who builds the image"
REBUILD = "who builds the image: rebuild it"
SET_USER = "who builds the image: set USER"
ADMIN = "an admin: retry the scan under Jobs"
ACCEPTER = "the owner of the rule: accept unjudged packages, or a waiver"
SCANS = "a user with image.scan: rescan the image"
PUSH = "push the missing platforms"
SIGNER = "who signs the image"
TRUST = "an admin: add a trusted source, or who builds the image: use another base"
RELEASER = "a user with image.quarantine: ask for the release; another user lifts it"
NAMES = "the owner of the rule: name a check that exists"
RUNS = "who runs the service of the check"
LAB = {"check": "site:lab", "max_age_hours": 24}
WHEN = f"{ago(1):%Y-%m-%d %H:%M} UTC"
ARM = replace(PLATFORM, digest="sha256:" + "c" * 64, platform="linux/arm64")
NAMELESS = replace(ARM, platform="")
UNLISTED = replace(ARM, sbom_at=None)
BROKEN = replace(ARM, sbom_at=None, scan_problem="no space")
UNJUDGED = replace(ARM, unjudged="2 of 8 were not judged")


def answered(*said, **more):
    return replace(GOOD, external={"site:lab": ExternalFact("site:lab", *said, **more)})


def both(other, *, platforms_of=PLATFORM, **more):
    """Return facts about two platforms, of which the first is good."""
    return replace(GOOD, platforms=(platforms_of, other), **more)


def supported(distro, days):
    return replace(ARM, distro=distro, supported_until=ago(-days).date())


def good(summary, /, **counts):
    return Outcome(Status.SATISFIED, summary, (), counts)


def bad(summary, who, *evidence, **counts):
    found = tuple(item if isinstance(item, Evidence) else Evidence(item) for item in evidence)
    return Outcome(Status.UNSATISFIED, summary, (who,), counts, found)


def waiting(summary, who="Gravingdock", /, **counts):
    return Outcome(Status.PENDING, summary, (who,), counts)


def odd(summary, who):
    return Outcome(Status.ERROR, summary, (who,))


def accepts(summary, **counts):
    return Outcome(Status.WAIVED, summary, (), counts)


def no_matter(summary):
    return Outcome(Status.NOT_APPLICABLE, summary)


def of(advisory, package="debian/openssl"):
    return Evidence(f"{advisory} in {package}", advisory, package)


def base(name, is_current, days=None):
    return BaseState("sha256:b", name, is_current, None if days is None else ago(days))


def based(*bases):
    return replace(GOOD, bases=bases)


def stayed(*stays):
    return replace(GOOD, stays=stays)


NO_PLATFORMS = replace(GOOD, platforms=())
UNKNOWN_PLATFORMS = odd("No platform of this image is known.", PUSH)
FOUR = [finding(f"CVE-{number}") for number in range(1, 5)]
FIND, NO_WORSE, BASE, SOAK = "findings", "no_worse", "base_current", "promoted"
THERE = {"environment": "staging", "hours": 49}
RULE = "The rule: no finding from high on."

ABOUT_FINDINGS = [
    (FIND, {}, GOOD, good("None: no finding from high on.", findings=0, allowed=0)),
    (FIND, {"fixable_only": True, "older_than_days": 1}, GOOD,
     good("None: no fixable finding from high on known for 1 day or longer.", findings=0, allowed=0)),
    (FIND, {"maximum": 2}, with_findings(*FOUR[:2]),
     good("2 findings, 2 allowed: no finding from high on.", findings=2, allowed=2)),
    (FIND, {"maximum": 1}, with_findings(*FOUR[1::-1]),
     bad(f"2 findings: CVE-1 in debian/openssl, CVE-2 in debian/openssl. {RULE} 1 allowed.", BUILDER, of("CVE-1"),
         of("CVE-2"), findings=2, allowed=1)),
    (FIND, {}, with_findings(*FOUR[:3]),
     bad("3 findings: CVE-1 in debian/openssl, CVE-2 in debian/openssl, CVE-3 in debian/openssl. " + RULE, BUILDER,
         *map(of, ("CVE-1", "CVE-2", "CVE-3")), findings=3, allowed=0)),
    (FIND, {}, with_findings(*FOUR),
     bad("4 findings: CVE-1 in debian/openssl, CVE-2 in debian/openssl, CVE-3 in debian/openssl and 1 more. " + RULE,
         BUILDER, *map(of, ("CVE-1", "CVE-2", "CVE-3", "CVE-4")), findings=4, allowed=0)),
    (FIND, {}, with_findings(finding("CVE-9", "critical"), finding("CVE-1"), finding("CVE-1", package="a")),
     bad(f"3 findings: CVE-9 in debian/openssl, CVE-1 in a, CVE-1 in debian/openssl. {RULE}", BUILDER, of("CVE-9"),
         of("CVE-1", "a"), of("CVE-1"), findings=3, allowed=0)),
    (FIND, {}, with_findings(finding(days=0, fix="")),
     bad(f"1 finding: CVE-1 in debian/openssl. {RULE}", BUILDER, of("CVE-1"), findings=1, allowed=0)),
    (FIND, {"older_than_days": 1}, with_findings(finding(days=0.9)),
     good("None: no finding from high on known for 1 day or longer.", findings=0, allowed=0)),
    (FIND, {"accept_unjudged": True}, both(UNJUDGED),
     accepts("None: no finding from high on. linux/arm64: 2 of 8 were not judged. The rule accepts this.", findings=0,
             allowed=0)),
    (NO_WORSE, {}, with_findings(finding("CVE-1")), good("No new finding from high on.", new=0)),
    (NO_WORSE, {}, with_findings(finding("CVE-2"), finding("CVE-1")),
     bad("1 finding that production does not have now: CVE-2 in debian/openssl.", BUILDER, of("CVE-2"), new=1)),
    (NO_WORSE, {}, with_findings(finding("CVE-1", package="debian/perl")),  # held in another package
     bad("1 finding that production does not have now: CVE-1 in debian/perl.", BUILDER, of("CVE-1", "debian/perl"),
         new=1)),
    (NO_WORSE, {}, replace(GOOD, environment=""), no_matter("There is no environment to compare with.")),
    (NO_WORSE, {}, replace(GOOD, held=None), no_matter("production holds nothing of shop/api yet.")),
    (NO_WORSE, {}, replace(GOOD, held=None, repository=""),
     no_matter("production holds nothing of this repository yet.")),
    (NO_WORSE, {}, replace(GOOD, held=HeldFacts("x", None)),
     odd("The findings of what production holds are unknown.", ADMIN)),
    (NO_WORSE, {"accept_unjudged": True}, both(UNJUDGED),
     accepts("No new finding from high on. linux/arm64: 2 of 8 were not judged. The rule accepts this.", new=0)),
    *((kind, {}, facts, wanted) for kind in (FIND, NO_WORSE) for facts, wanted in (
        (NO_PLATFORMS, UNKNOWN_PLATFORMS),
        (both(BROKEN), odd("The scan of linux/arm64 failed: no space", ADMIN)),
        (both(replace(BROKEN, platform="")), odd("The scan of sha256:cccccccccccc failed: no space", ADMIN)),

        (both(UNLISTED), waiting("The scan has not finished.")),
        (replace(GOOD, findings=None), waiting("The scan has not finished.")),
        (both(replace(ARM, is_matched=False)), waiting("Packages are being checked against advisories.")),
        (both(UNJUDGED), odd("linux/arm64: 2 of 8 were not judged. Their findings are unknown.", ACCEPTER)),
    )),
]  # fmt: skip
ABOUT_PLATFORMS = [
    ("sbom", {}, both(replace(ARM, sbom_at=ago(2))), good("Listed 2 days ago.", days=2)),
    ("sbom", {"max_age_days": 2}, both(replace(ARM, sbom_at=ago(2.9))), good("Listed 2 days ago.", days=2)),
    ("sbom", {"max_age_days": 1}, both(replace(ARM, sbom_at=ago(2))),
     bad("The packages were listed 2 days ago; at most 1 allowed.", "anyone with image.scan: scan it again", days=2,
         allowed=1)),
    ("sbom", {}, both(BROKEN), odd("The scan of linux/arm64 failed: no space", ADMIN)),
    ("sbom", {}, both(UNLISTED), waiting("The packages of linux/arm64 are not listed yet.")),
    ("sbom", {}, replace(GOOD, platforms=(replace(UNLISTED, platform="a"), replace(UNLISTED, platform="b"), UNLISTED)),
     waiting("The packages of a, b, linux/arm64 are not listed yet.")),
    ("sbom", {}, replace(GOOD, platforms=tuple(replace(UNLISTED, platform=name) for name in "abcde")),
     waiting("The packages of a, b, c and 2 more are not listed yet.")),
    ("sbom", {}, NO_PLATFORMS, UNKNOWN_PLATFORMS),
    ("image_age", {"max_days": 3}, both(replace(ARM, created_at=ago(1))),
     good("Created 3 days ago, at most 3 allowed.", days=3, allowed=3)),
    ("image_age", {"max_days": 3}, both(replace(ARM, created_at=ago(4.5))),
     bad("Created 4 days ago; at most 3 allowed.", REBUILD, days=4, allowed=3)),
    ("image_age", {"max_days": 2}, both(replace(ARM, created_at=None)),  # what is known is too old already
     bad("Created 3 days ago; at most 2 allowed.", REBUILD, days=3, allowed=2)),
    ("image_age", {"max_days": 3}, both(replace(ARM, created_at=None)),
     odd("The date of a platform is unknown.", BUILDER)),
    ("image_age", {}, with_platform(created_at=None), odd("The date of a platform is unknown.", BUILDER)),
    ("image_age", {}, NO_PLATFORMS, UNKNOWN_PLATFORMS),
    ("rebuilt_within", {"max_days": 3}, both(replace(ARM, first_seen_at=ago(1))),
     good("First seen 2 days ago, at most 3 allowed.", days=2, allowed=3)),
    ("rebuilt_within", {"max_days": 1}, GOOD, bad("First seen 2 days ago; at most 1 allowed.", REBUILD, days=2,
                                                  allowed=1)),
    ("not_root", {}, both(replace(ARM, user="app:app")), good("Runs as 1000, app.")),
    ("not_root", {}, both(replace(ARM, user="0:7")), bad("linux/arm64: runs as root.", SET_USER, "linux/arm64")),
    ("not_root", {}, both(replace(ARM, user=" root ")), bad("linux/arm64: runs as root.", SET_USER, "linux/arm64")),
    ("not_root", {}, replace(both(replace(ARM, user=None)), platforms=(replace(ARM, user=None),
                                                                       replace(PLATFORM, user=""))),
     bad("linux/amd64: runs as root.", SET_USER, "linux/amd64")),
    ("not_root", {}, both(replace(ARM, user=None)), odd("The configuration of a platform is unknown.", BUILDER)),
    ("not_root", {"number_only": True}, both(replace(ARM, user=None)),
     odd("The configuration of a platform is unknown.", BUILDER)),
    ("not_root", {"number_only": True}, both(replace(ARM, user="app")),
     bad("linux/arm64: the user is a name. Clusters can check only a number.", f"{SET_USER} to a number")),
    ("not_root", {"number_only": True}, both(replace(ARM, user="8")), good("Runs as 1000, 8.")),
    ("not_root", {}, with_platform(user="\u00b2"), good("Runs as \u00b2.")),  # a digit, but no number
    ("labels", {"labels": ["team", "org.opencontainers.image.source=https://*"]}, GOOD,
     good("Present: org.opencontainers.image.source=https://*, team.")),
    ("labels", {"labels": ["team", "owner"]}, both(replace(ARM, labels={"owner": "kim", "team": ""})),
     bad("Missing: owner, team.", "who builds the image: add the labels", "owner", "team", missing=2)),
    ("labels", {"labels": ["team"]}, both(replace(ARM, user=None)),
     odd("The configuration of a platform is unknown.", BUILDER)),
    ("platforms", {}, both(ARM), good("linux/amd64, linux/arm64.", platforms=2)),
    ("platforms", {}, with_platform(platform=""), good("One platform.", platforms=1)),
    ("platforms", {"platforms": ["linux/arm64"]}, both(replace(ARM, is_known=False)),
     bad("Missing: linux/arm64.", PUSH, "linux/arm64")),
    ("platforms", {"platforms": ["linux/s390x"]}, both(replace(NAMELESS, is_known=False), missing_platforms=("x",)),
     bad("Missing: linux/s390x, sha256:cccccccccccc, x.", PUSH, "linux/s390x", "sha256:cccccccccccc", "x")),
    ("platforms", {}, NO_PLATFORMS, bad("Missing: all platforms.", PUSH, "all platforms")),
]  # fmt: skip
ABOUT_PLACES = [
    (BASE, {}, GOOD, good("The base is current.", days=0, allowed=0)),
    (BASE, {}, based(), odd("No base of this image is known.", "who builds the image: declare its base")),
    (BASE, {"max_days_behind": 4}, based(base("a", False, 5), base("b", False, 7), base("c", False, 4),
                                         base("d", True)),
     bad("a, b: 7 days behind, 4 allowed.", REBUILD, "a", "b", days=7, allowed=4)),
    (BASE, {"max_days_behind": 4}, based(base("a", False)),
     bad("a: 0 days behind, 4 allowed.", REBUILD, "a", days=0, allowed=4)),
    (BASE, {}, based(base("a", True), base("b", None)),
     odd("No tag ever pointed to the base b, so its age is unknown.", BUILDER)),
    (BASE, {"max_days_behind": 4}, based(base("a", False, 3), base("b", False, 4), base("c", True)),
     good("4 days behind, 4 allowed.", days=4, allowed=4)),
    (BASE, {"max_days_behind": 4}, based(base("a", False, 3), base("b", None)),
     odd("No tag ever pointed to the base b, so its age is unknown.", BUILDER)),
    (SOAK, THERE, stayed(), bad("It was never in staging.", "promotion to staging", hours=0, required=49)),
    (SOAK, THERE, stayed(Stay("qa", ago(90))),
     bad("It was never in staging.", "promotion to staging", hours=0, required=49)),
    (SOAK, {"environment": "staging"}, stayed(Stay("staging", NOW)),
     good("Was in staging for 0 hours or longer.", required=0)),
    (SOAK, THERE, stayed(Stay("staging", ago(9), ago(9) + timedelta(hours=49)), Stay("staging", ago(1))),
     good("Was in staging for 49 hours or longer.", required=49)),
    (SOAK, THERE, stayed(Stay("staging", ago(9), ago(8)), Stay("staging", ago(2))),
     waiting("It must stay in staging for 49 hours: until 2026-11-28 13:00 UTC.", "time", required=49)),
    (SOAK, {"environment": "staging", "hours": 1}, stayed(Stay("staging", NOW - timedelta(minutes=59))),
     waiting("It must stay in staging for 1 hour: until 2026-11-28 12:01 UTC.", "time", required=1)),
    (SOAK, THERE, stayed(Stay("staging", ago(9), ago(8)), Stay("staging", ago(5), ago(3) + timedelta(minutes=59))),
     bad("It left staging after 48 hours; 49 required.", "promotion to staging", hours=48, required=49)),
    (SOAK, THERE, stayed(Stay("staging", ago(9), ago(9) + timedelta(hours=1))),
     bad("It left staging after 1 hour; 49 required.", "promotion to staging", hours=1, required=49)),
    (SOAK, THERE, stayed(Stay("staging", ago(9), ago(10))),  # a clock that went back
     bad("It left staging after 0 hours; 49 required.", "promotion to staging", hours=0, required=49)),
]  # fmt: skip


def files(*found, **more):
    return replace(GOOD, contents=ContentFacts(tuple(found), **({"malware": "clean"} | more)))


KEY, PASSWORD = FileFact("private_key", "/root/.ssh/id", "rsa"), FileFact("credential", "/etc/token")
VIRUS = FileFact("malware", "/tmp/x", "Eicar")
MANY = [FileFact("setuid", f"/bin/{number}") for number in range(5)]
NOT_CHECKED = odd("The files of the image were not checked yet.", SCANS)
CUT = odd("There are more such files than are listed, so not all could be compared.", BUILDER)
OF_KINDS = {
    "secrets": ("private_key credential", "private keys or credentials"),
    "setuid": ("setuid setgid", "setuid or setgid files"),
    "file_modes": ("world_writable device", "world-writable files or devices"),
    "malware": ("malware", "malware"),
    "unowned": ("unowned", "programs that no package owns"),
}
ALL_FILES = [FileFact(kind, f"/{kind}") for kinds, _ in OF_KINDS.values() for kind in kinds.split()]


def only(kinds, words):
    """Return what a rule about these kinds says when there is a file of every kind."""
    found = [Evidence(f"/{kind} ({kind})", f"/{kind}", kind) for kind in kinds.split()]
    shown = ", ".join(item.advisory for item in found)
    return bad(f"The image has {words}: {shown}.", BUILDER, *found, files=len(found))


ABOUT_FILES = [
    *((kind, {}, files(*ALL_FILES), only(*names)) for kind, names in OF_KINDS.items()),
    *((kind, {}, files(), good(f"The image has no {words}.")) for kind, (_, words) in OF_KINDS.items()),
    *((kind, {}, GOOD, NOT_CHECKED) for kind in OF_KINDS),
    *((kind, {}, files(problem="A layer is missing."), odd("A layer is missing.", SCANS)) for kind in OF_KINDS),
    *((kind, {}, files(cut=frozenset(kinds.split()[-1:])), CUT) for kind, (kinds, _) in OF_KINDS.items()),
    ("secrets", {}, files(cut=frozenset({"setuid"})), good("The image has no private keys or credentials.")),
    ("secrets", {}, files(KEY, PASSWORD, problem="A layer is missing."),
     bad("The image has private keys or credentials: /root/.ssh/id, /etc/token.", BUILDER,
         Evidence("/root/.ssh/id (rsa)", "/root/.ssh/id", "private_key"),
         Evidence("/etc/token (credential)", "/etc/token", "credential"), files=2)),
    ("secrets", {"except": ["/root/*", "/etc/token"]}, files(KEY, PASSWORD),
     good("The image has no private keys or credentials.")),
    ("secrets", {"except": ["/root/*", "/x"]}, files(KEY, PASSWORD),
     bad("The image has private keys or credentials: /etc/token.", BUILDER,
         Evidence("/etc/token (credential)", "/etc/token", "credential"), files=1)),
    ("setuid", {}, files(*MANY[:3]),
     bad("The image has setuid or setgid files: /bin/0, /bin/1, /bin/2.", BUILDER,
         *(Evidence(f"/bin/{n} (setuid)", f"/bin/{n}", "setuid") for n in range(3)), files=3)),
    ("setuid", {}, files(*MANY),
     bad("The image has setuid or setgid files: /bin/0, /bin/1, /bin/2 and 2 more.", BUILDER,
         *(Evidence(f"/bin/{n} (setuid)", f"/bin/{n}", "setuid") for n in range(5)), files=5)),
    ("malware", {}, files(VIRUS, malware="off"),
     bad("The image has malware: /tmp/x.", BUILDER, Evidence("/tmp/x (Eicar)", VIRUS.path, "malware"), files=1)),
    ("malware", {}, files(malware="off"), odd("No malware scanner is set up.", "an admin: set CLAMD")),
    ("malware", {}, files(malware="unknown"), odd("The malware scanner did not look at every file.", SCANS)),
    ("malware", {}, files(malware="unknown", malware_problem="It ran out of time."), odd("It ran out of time.", SCANS)),
    ("malware", {"except": [VIRUS.path]}, files(VIRUS, malware="found"),
     odd("The malware scanner did not look at every file.", SCANS)),
    ("quarantine", {}, GOOD, odd("The quarantines were not read.", "Gravingdock")),
    ("quarantine", {}, replace(GOOD, quarantines=()), good("No quarantine covers the image.")),
    ("quarantine", {}, replace(GOOD, quarantines=("Stolen key.", "Malware.")),
     bad("Stolen key. Malware.", RELEASER, "Stolen key.", "Malware.", quarantines=2)),
    ("licences", {"deny": ["AGPL-*"]}, replace(GOOD, licences=LicenceFacts({f"AGPL-{n}": {"b", "a"} for n in "123"})),
     bad("Denied licences: AGPL-1 (a), AGPL-2 (a), AGPL-3 (a).", BUILDER,
         *(f"AGPL-{n}: a, b" for n in "123"), licences=3)),
    ("licences", {"deny": ["AGPL-*"]}, replace(GOOD, licences=LicenceFacts({"MIT": {"a"}}, undeclared=1)),
     odd("1 package declares no licence.", BUILDER)),
    ("pen_test", {}, replace(GOOD, pentests=PentestFacts()),
     odd("No full pen test of this image or an earlier one was sent.",
         "who tests the image: send the report of a full run")),
    ("pen_test", {"accept_untested": True}, replace(GOOD, pentests=PentestFacts()),
     Outcome(Status.WAIVED, "No full pen test of this image or an earlier one was sent. The rule accepts that.")),
    ("pen_test", {}, replace(GOOD, pentests=PentestFacts((PentestFact("PT-1", "medium", "own"),), True)),
     good("No pen-test finding from high on.", findings=0)),
    ("pen_test", {"severity": "medium"},
     replace(GOOD, pentests=PentestFacts(tuple(PentestFact(f"PT-{n}", "high", "carried") for n in range(4)))),
     bad("4 pen-test findings: PT-0 (high, carried), PT-1 (high, carried), PT-2 (high, carried) and 1 more.",
         "who builds the image: fix it and send a full run, or let a second person accept it",
         *(f"PT-{n}: high, carried" for n in range(4)), findings=4)),
    ("pen_test", {}, GOOD, odd("The pen tests of the image were not read.", "Gravingdock")),
    ("isolation", {"checks": ["run-as-root", "ssh"]}, with_platform(image=ImageConfig("root", exposes_ssh=False)),
     bad("The image runs as root.", BUILDER,
         "linux/amd64: The image runs as root. Set securityContext.runAsNonRoot to true, and a number other than 0 as "
         "USER of the image or as runAsUser.", failed=1)),
    ("isolation", {"checks": ["ssh"]}, with_platform(image=ImageConfig(exposes_ssh=False)),
     good("The image passes ssh.")),
    ("isolation", {"checks": ["ssh"]}, GOOD,
     odd("No SSH server: The configuration of the image is not known.", SCANS)),
    ("isolation", {"checks": ["setuid"]}, replace(GOOD, contents=ContentFacts(())), good("The image passes setuid.")),
    ("isolation", {"checks": ["setuid"]}, replace(GOOD, contents=ContentFacts((), cut=frozenset({"setgid"}))),
     odd("No setuid files: The files of the image were not checked.", SCANS)),
    ("isolation", {"checks": ["setuid"]}, replace(GOOD, contents=ContentFacts((FileFact("setgid", "/x"),))),
     bad("The image has setuid or setgid files.", BUILDER,
         "linux/amd64: The image has setuid or setgid files. Remove the setuid and setgid bits in the image.",
         failed=1)),
    ("isolation", {"checks": ["privileged"]}, GOOD,
     Outcome(Status.NOT_APPLICABLE, "These checks are about pods. They are judged at admission.")),
    ("licences", {"deny": ["AGPL-*"]}, GOOD, odd("The licences of the packages are not known.", SCANS)),
    ("end_of_life", {}, both(supported("debian-12", 9), platforms_of=supported("debian-13", 40)),
     good("debian-12 is supported for 9 more days.", days=9)),
    ("end_of_life", {"min_days": 10}, both(supported("debian-12", 9), platforms_of=supported("debian-13", 40)),
     bad("The support of debian-12 ends in 9 days; 10 more days are asked for.", BUILDER,
         "debian-12: 9 days left", days=9, wanted=10)),
    ("end_of_life", {}, both(supported("debian-12", 0), platforms_of=supported("debian-13", 40)),
     good("debian-12 is supported for 0 more days.", days=0)),
    ("end_of_life", {"min_days": 1}, both(supported("debian-12", 0)),
     bad("The support of debian-12 ends in 0 days; 1 more days are asked for.", BUILDER,
         "debian-12: 0 days left", days=0, wanted=1)),
    ("end_of_life", {}, both(supported("debian-10", -1)),
     bad("The support of debian-10 ended 1 day ago; 0 more days are asked for.", BUILDER,
         "debian-10: -1 days left", days=-1, wanted=0)),
    ("end_of_life", {}, GOOD, odd("The distribution of linux/amd64 is not known.", BUILDER)),
    ("end_of_life", {"accept_none": True}, GOOD, good("The image has no distribution.")),
    ("end_of_life", {}, replace(GOOD, platforms=(replace(ARM, distro="odd-1"),)),
     odd("Nobody knows how long odd-1 is supported.", "an admin: name the distribution in END_OF_LIFE_FILE")),
    ("end_of_life", {}, both(BROKEN), odd("The scan of linux/arm64 failed: no space", ADMIN)),
    ("end_of_life", {}, both(UNLISTED), waiting("The packages of linux/arm64 are not listed yet.")),
    ("external", LAB, GOOD, odd("There is no check site:lab of the site or of this team.", NAMES)),
    ("external", LAB, answered(), waiting("site:lab was not asked about this image yet.")),
    ("external", LAB, answered(problem="It is down."), odd("site:lab has not answered: It is down.", RUNS)),
    ("external", LAB, answered(None, ago(0), "Still running."), odd("site:lab cannot say yet: Still running.", RUNS)),
    ("external", LAB, answered(True, ago(1), "Fine."), good(f"site:lab at {WHEN}: Fine.")),
    ("external", LAB, answered(False, ago(1), "Broken."), bad(f"site:lab at {WHEN}: Broken.", RUNS)),
    ("external", LAB | {"max_age_hours": 23}, answered(True, ago(1), "Fine.", "It is down."),
     odd(f"site:lab answered at {WHEN}; at most 23 hours ago are allowed. Since then: It is down.", RUNS)),
]  # fmt: skip


def signature(source="", **more):
    return SignatureFact("o", "s", "bundle", source, **more)


def signed(*verified, **more):
    return replace(GOOD, signatures=SignatureFacts(True, verified, **more))


def trust(status, *bases, reason=""):
    return replace(GOOD, base_trust=BaseTrustFacts(status, bases, reason))


KIM = signature(identity="kim@example.com", issuer="https://i.example")
SLSA = signature("release", predicate_type="slsa", builder_id="ci/1", source_uri="git/shop")
UNREAD = replace(GOOD, signatures=SignatureFacts(False, (signature("a"),), problem="The registry did not answer."))
ANY, EVERY = "signed_by_any", "signed_by_all"
ABOUT_SIGNERS = [
    (ANY, {"signers": ["a", "b"]}, signed(signature("b")), good("Signed by b.", signatures=1)),
    (ANY, {"signers": list("abcde")}, signed(*map(signature, "abcd")),
     good("Signed by a, b, c and 1 more.", signatures=4)),
    (ANY, {"signers": ["a", "b"]}, signed(), bad("Not signed by a, b.", SIGNER, signatures=0, required=2)),
    (ANY, {"signers": list("abc")}, signed(refused=("Its key is old.", "No.")),
     bad("Not signed by a, b, c. Its key is old.", SIGNER, "Its key is old.", "No.", signatures=0, required=3)),
    (EVERY, {"signers": ["a", "b", "c"]}, signed(signature("b")),
     bad("Not signed by a, c.", SIGNER, signatures=1, required=3)),
    (EVERY, {"signers": ["a", "b"]}, signed(*map(signature, "ab")), good("Signed by a, b.", signatures=2)),
    (ANY, {"signers": ["kim@* https://i.example"]}, signed(KIM),
     good("Signed by kim@* https://i.example.", signatures=1)),
    (ANY, {"signers": ["max@* https://i.example"]}, signed(KIM),
     bad("Not signed by max@* https://i.example.", SIGNER, signatures=0, required=1)),
    (ANY, {"signers": ["* https://i.example"]}, signed(replace(KIM, identity="")),
     bad("Not signed by * https://i.example.", SIGNER, signatures=0, required=1)),
    *((kind, values, facts, odd(words, "Gravingdock")) for kind, values in (
        (ANY, {"signers": ["a"]}), (EVERY, {"signers": ["a"]}), ("provenance", {"builders": ["*"]}),
    ) for facts, words in (
        (GOOD, "The signatures have not been read yet."),
        (UNREAD, "The registry did not answer."),
        (replace(GOOD, signatures=SignatureFacts(False)), "The signatures have not been read yet."),
    )),
    ("provenance", {"builders": ["x", "ci/*"], "sources": ["x", "git/*"]}, signed(signature("release"), SLSA),
     good("Built by ci/1 from git/shop.")),
    ("provenance", {"builders": ["x"]}, signed(SLSA, replace(SLSA, builder_id="", source_uri="git/x")),
     bad("The provenance names ci/1 from git/shop.", BUILDER, "ci/1 from git/shop")),
    ("provenance", {"builders": ["*"]}, signed(replace(SLSA, predicate_type="")),  # a signature, no statement
     bad("There is no verified provenance.", "who builds the image: attach a signed provenance")),
    ("provenance", {"builders": ["*"]}, signed(replace(SLSA, builder_id="")),
     bad("There is no verified provenance.", "who builds the image: attach a signed provenance")),
    ("base_trusted", {}, GOOD, odd("The trust in the bases is not known.", TRUST)),
    ("base_trusted", {}, trust(BaseTrust.SOURCE), good("From a trusted source.")),
    ("base_trusted", {}, trust(BaseTrust.TRUSTED), good("The bases are trusted.")),
    ("base_trusted", {}, trust(BaseTrust.UNTRUSTED), bad("A base is not from a trusted source.", TRUST)),
    ("base_trusted", {}, trust(BaseTrust.UNTRUSTED, BaseFact("sha256:b", "debian:13", False, reason="Unknown."),
                               BaseFact("sha256:c", "", False, reason="Old."), BaseFact("d", "fine", True),
                               reason="2 bases are not trusted."),
     bad("2 bases are not trusted.", TRUST, "debian:13: Unknown.", "sha256:c: Old.")),
    ("base_trusted", {}, trust(BaseTrust.UNKNOWN), odd("No base of this image is known.", TRUST)),
    ("base_trusted", {}, trust(BaseTrust.UNKNOWN, reason="It was never seen."), odd("It was never seen.", TRUST)),
]  # fmt: skip
EXPLOITED = replace(finding(), exploited_on=NOW.date())
LISTED = replace(GOOD, kev_read_at=ago(7), epss_scored_at=ago(7))
LOAD = "an admin: load the feed again"
NO_SCORE = "the owner of the rule: accept findings without a score, or a waiver"
LIKELY = {"percent": 50, "severity": "high", "max_list_days": 7}


def listed(*found, **more):
    return replace(LISTED, findings=found, **more)


ABOUT_EXPLOITS = [
    ("due_date", {}, GOOD, odd("The due dates were not read.", "an operator: look at the log")),
    ("due_date", {}, replace(GOOD, due_lists=frozenset()),
     good("No finding from low on is past its due date.", findings=0)),
    ("due_date", {}, listed(replace(finding(), due_at=ago(4)), finding("CVE-2"), due_lists=frozenset({"kev"})),
     bad("1 finding past the due date, by up to 4 days: CVE-1 in debian/openssl.", BUILDER, of("CVE-1"), findings=1,
         allowed=0, days=4)),
    ("due_date", {}, replace(GOOD, due_lists=frozenset({"epss"})),
     odd("The due dates need a file of exploit scores (EPSS), and none was loaded yet.",
         "an admin: load the feed, or the owner of the rule: accept due dates without it")),
    ("kev", {}, GOOD, odd("No list of known exploited vulnerabilities (KEV) was loaded yet.", LOAD)),
    ("kev", {"max_list_days": 7}, listed(finding()), good("No finding is known to be exploited.", findings=0)),
    ("kev", {"max_list_days": 6}, listed(finding()),
     odd("The list of known exploited vulnerabilities (KEV) is 7 days old; at most 6 allowed.", LOAD)),
    ("kev", {"max_list_days": 6}, listed(finding("CVE-2"), EXPLOITED),
     bad("1 finding known to be exploited: CVE-1 in debian/openssl.", BUILDER, of("CVE-1"), findings=1, allowed=0)),
    ("kev", {"ransomware_only": True, "max_list_days": 7}, listed(EXPLOITED),
     good("No finding is used in ransomware campaigns.", findings=0)),
    ("kev", {"ransomware_only": True}, listed(replace(EXPLOITED, is_ransomware=True)),
     bad("1 finding used in ransomware campaigns: CVE-1 in debian/openssl.", BUILDER, of("CVE-1"), findings=1,
         allowed=0)),
    ("epss", LIKELY, replace(GOOD, epss_scored_at=None), odd("No file of exploit scores (EPSS) was loaded yet.", LOAD)),
    ("epss", LIKELY, listed(replace(finding(), epss=0.5)),
     bad("1 finding with an EPSS score of 50 % or more: CVE-1 in debian/openssl.", BUILDER, of("CVE-1"), findings=1,
         allowed=0)),
    ("epss", LIKELY, listed(replace(finding(), epss=0.49), replace(finding(severity="low"), epss=0.9)),
     good("No finding from high on has an EPSS score of 50 % or more.", findings=0)),
    ("epss", LIKELY, listed(finding()), odd("1 finding without an EPSS score: CVE-1 in debian/openssl.", NO_SCORE)),
    ("epss", LIKELY | {"accept_unscored": True}, listed(finding()),
     good("No finding from high on has an EPSS score of 50 % or more.", findings=0)),
]  # fmt: skip
TABLE = ABOUT_EXPLOITS + ABOUT_FINDINGS + ABOUT_PLATFORMS + ABOUT_PLACES + ABOUT_FILES + ABOUT_SIGNERS


@pytest.mark.parametrize(("kind", "parameters", "facts", "wanted"), TABLE)
def test_rule_says_this(kind, parameters, facts, wanted):
    assert KINDS[kind].judge(facts, KINDS[kind].clean(parameters)) == wanted


def test_every_rule_is_in_the_table():
    assert {row[0] for row in TABLE} == {name for name, kind in KINDS.items() if kind.judge is not None}


@pytest.mark.parametrize(
    ("kind", "numbers", "facts"),
    [
        ("findings", ["maximum", "older_than_days"], with_findings(finding(days=0))),
        ("base_current", ["max_days_behind"], based(base("a", False, 0.5))),
        ("promoted", ["hours"], stayed(Stay("staging", NOW))),
    ],
)
def test_number_that_is_absent_counts_as_zero(kind, numbers, facts):
    """A number of an older revision can be absent. It must not make the rule looser, or break it."""
    values = {"severity": "high", "fixable_only": False, "accept_unjudged": False, "environment": "staging"}
    wanted = KINDS[kind].judge(facts, values | dict.fromkeys(numbers, 0))
    assert KINDS[kind].judge(facts, values | dict.fromkeys(numbers)) == wanted


def test_scan_that_failed_says_nothing_about_a_list_from_before():
    for kind in ("findings", "no_worse", "sbom"):
        values = KINDS[kind].clean({})
        assert KINDS[kind].judge(both(replace(BROKEN, sbom_at=ago(1))), values) == KINDS[kind].judge(both(ARM), values)


def test_evidence_is_cut_and_the_count_is_not():
    many = with_findings(*(finding(f"CVE-{number:03}") for number in range(EVIDENCE_MAX + 9)))
    found = KINDS["findings"].judge(many, KINDS["findings"].clean({}))
    assert [item.advisory for item in found.evidence] == [f"CVE-{number:03}" for number in range(EVIDENCE_MAX)]
    assert found.counts["findings"] == EVIDENCE_MAX + 9
    assert len(failed("", "", evidence=tuple(Evidence(str(n)) for n in range(EVIDENCE_MAX + 1))).evidence) == 50


@pytest.mark.parametrize("severity", ["critical", "high", "medium", "low", "none", "unknown"])
@pytest.mark.parametrize("lowest", ["critical", "high", "medium", "low"])
def test_severities_from_the_lowest_on_count_and_unknown_ones_do(severity, lowest):
    order = ["critical", "high", "medium", "low", "none"]
    counts = severity == "unknown" or order.index(severity) <= order.index(lowest)
    found = KINDS["findings"].judge(
        with_findings(finding(severity=severity)), KINDS["findings"].clean({"severity": lowest})
    )
    assert found.is_open is not counts
