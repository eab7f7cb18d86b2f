"""`gravingdock`: manage images, promotions and rebuilds from a terminal or a pipeline.

Data goes to standard output, messages to standard error. No colours are printed.
Exit codes: 0 ok, 1 error, 2 usage, 3 refused by the policy, 4 not authenticated, 5 timed out.
"""

from __future__ import annotations

import argparse
import getpass
import itertools
import json
import os
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import httpx

from lifecycle.cli import (
    access,
    admission,
    advisories,
    alerts,
    audit,
    client,
    clusters,
    completion,
    credentials,
    environments,
    exports,
    feeds,
    findings,
    fixes,
    gate,
    groups,
    image_contents,
    isolation,
    keyless,
    keys,
    metadata_commands,
    names,
    notices,
    pentests,
    policy,
    quarantine,
    registries,
    releases,
    repositories,
    retention,
    runtime,
    sboms,
    scan,
    signing_in,
    tables,
    teams,
    trends,
    verifying,
    vex,
    vex_feeds,
)
from lifecycle.cli.client import Api, CommandFailed, Login
from lifecycle.cli.printing import print_one, print_rows, say
from lifecycle.cli.tables import Column
from lifecycle.cli.waiting import add_wait, check_timeout, positive, wait_until_done

IMAGE_COLUMNS: Final[Sequence[Column]] = (
    ("NAME", tables.names),
    ("DIGEST", lambda image: tables.short(image["digest"])),
    ("PLATFORM", lambda image: image["platform"] or image["kind"]),
    ("DISTRO", lambda image: image["distro"]),
    ("SIZE", lambda image: tables.megabytes(image["size_bytes"])),
    ("PACKAGES", tables.packages),
    ("FINDINGS", tables.findings),
)
FINDING_COLUMNS: Final[Sequence[Column]] = (
    ("SEVERITY", lambda finding: finding["severity"]),
    ("ID", tables.cve),
    ("EXPLOIT", tables.exploit),
    ("PACKAGE", lambda finding: finding["purl"]),
    ("FIXED IN", lambda finding: finding["fixed_version"] or "no fix available"),
    ("STATE", lambda finding: finding["state"]),
    ("ADVISORY", lambda finding: finding["advisory"] if finding["advisory"] != tables.cve(finding) else ""),
)
PROMOTION_COLUMNS: Final[Sequence[Column]] = (
    ("ID", lambda row: row["id"]),
    ("STATE", lambda row: row["state"]),
    ("REPOSITORY", lambda row: row["repository"]),
    ("ENVIRONMENT", lambda row: row["environment"]),
    ("TAG", lambda row: row["tag"]),
    ("DIGEST", lambda row: tables.short(row["digest"])),
    ("REQUESTED BY", lambda row: row["requested_by"]),
    ("CREATED", lambda row: tables.moment(row["created_at"])),
)
WAVE_COLUMNS: Final[Sequence[Column]] = (
    ("WAVE", lambda row: f"W-{row['id']}"),
    ("STATE", lambda row: row["state"]),
    ("BASE", lambda row: row["base"]),
    ("NEW DIGEST", lambda row: tables.short(row["new_digest"])),
    ("TRIGGER", lambda row: row["trigger"]),
    ("PLANNED BY", lambda row: row["planned_by"]),
    ("CREATED", lambda row: tables.moment(row["created_at"])),
    ("IMAGES", lambda row: ", ".join(f"{count} {state}" for state, count in sorted(row["jobs_by_state"].items()))),
)
JOB_COLUMNS: Final[Sequence[Column]] = (
    ("LEVEL", lambda row: row["level"]),
    ("REPOSITORY", lambda row: row["repository"]),
    ("STATE", lambda row: row["state"]),
    ("METHOD", lambda row: row["method"]),
    ("WOULD FIX", lambda row: _count(row["would_fix"])),
    ("FIXED", lambda row: _count(row["fixed"])),
    ("INTRODUCED", lambda row: _count(row["introduced"])),
    ("STILL OPEN", lambda row: _count(row["still_open"])),
    ("REMAINING", lambda row: row["remaining_count"]),
    ("SECONDS", lambda row: row["seconds"]),
)
UNDER_WAY: Final = frozenset({"executing", "verifying"})
UNDECIDED: Final = UNDER_WAY | {"open", "ready"}  # somebody, or the environment by itself, takes it further
WAVE_UNDER_WAY: Final = frozenset({"running"})
REQUEST_HELP: Final = {
    "repository": "source repository, for example shop/api",
    "environment": "target environment, for example staging",
    "reason": "reason for the request; approvers see it",
}
DECISIONS: Final = {
    "approve": "approve a request of another user",
    "object": "object to a request: it waits until you withdraw that; requires --reason",
    "reject": "reject a request permanently; requires --reason",
    "withdraw-vote": "take back your own approval or objection",
    "withdraw": "withdraw your own request",
}
STEERING: Final = {
    "retry": "retry the failed and blocked images of a wave",
    "cancel": "cancel a wave; finished images are kept",
}


def main(arguments: Sequence[str] | None = None, *, transport: httpx.BaseTransport | None = None) -> int:
    """Run one command and return its exit code. Tests pass a `transport` to replace the network."""
    options = parser().parse_args(arguments)  # exits with 2 on a usage error
    try:
        if options.run is complete:
            complete(options)
        elif options.run in {sign_in, credentials.answer}:
            options.run(options, transport)
        else:
            options.run(options, Api(client.stored_login(), transport=transport))
        sys.stdout.flush()
    except CommandFailed as error:
        if str(error):
            print(tables.plain(str(error), keep="\n"), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return client.EXIT_ERROR
    except BrokenPipeError:  # for example `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush does not fail
        return client.EXIT_ERROR
    return client.EXIT_OK


def docker_credential() -> int:
    """Run as `docker-credential-gravingdock ACTION`, and return the exit code."""
    return main(["credential-helper", *sys.argv[1:]])


def parser() -> argparse.ArgumentParser:
    """Return the argument parser with all commands."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print JSON")
    limited = argparse.ArgumentParser(add_help=False, parents=[shared])
    limited.add_argument("--limit", type=positive, default=50, help="maximum number of rows (default %(default)s)")
    top = argparse.ArgumentParser(
        prog="gravingdock",
        description="Manage the life of container images: find, promote and rebuild them.",
        epilog="Exit codes: 0 ok, 1 error, 2 usage, 3 refused by the policy, 4 not authenticated, 5 timed out.",
    )
    top.add_argument("--version", action="version", version=f"gravingdock {_version()}", help="print the version")
    areas = top.add_subparsers(required=True, metavar="AREA")

    auth = areas.add_parser("auth", help="sign in, and see who is signed in").add_subparsers(
        required=True, metavar="COMMAND"
    )
    login = auth.add_parser("login", parents=[shared], help="check and store a token, from a prompt or standard input")
    login.add_argument("--url", required=True, help="address of the server")
    login.set_defaults(run=sign_in)
    auth.add_parser("status", parents=[shared], help="show who is signed in, where, and until when").set_defaults(
        run=status
    )

    credentials.add_command(areas)
    _add_image(areas, shared, limited)
    metadata_commands.add_metadata(areas, shared)
    teams.add_team(areas, shared)

    _add_promotion(areas, shared, limited)
    releases.add_area(areas, shared, limited)
    verifying.add_verify(areas, shared)
    environments.add_to(areas, shared, limited)
    clusters.add_area(areas, shared, limited)
    keyless.add_area(areas, shared, limited)
    admission.add_area(areas, shared)
    _add_rebuild(areas.add_parser("rebuild", help="plan, run and follow rebuild waves"), shared, limited)
    policy.add_areas(areas, shared, limited)
    isolation.add_area(areas, shared)
    pentests.add_area(areas, shared, limited)
    notices.add_areas(areas, shared, limited)
    registries.add_to(areas, shared, limited)
    groups.add_to(areas, shared, limited)
    signing_in.add_to(areas, shared, limited)
    for area in (repositories, access, quarantine):
        area.add_area(areas, shared, limited)
    retention.add_area(areas, shared, limited)
    alerts.add_area(areas, shared, limited)
    runtime.add_area(areas, shared, limited)
    advisories.add_area(areas, limited)
    fixes.add_area(areas, shared)
    trends.add_area(areas, shared)
    for area in (findings, audit):
        area.add_area(areas)
    gate.add_gate(areas, shared)
    scan.add_scan(areas, shared)
    vex.add_area(areas, shared, limited)
    vex_feeds.add_area(areas, shared, limited)
    keys.add_area(areas, shared, limited)
    feeds.add_area(areas, shared, limited)
    shells = areas.add_parser("completion", help="print the completion script of a shell")
    shells.add_argument("shell", choices=completion.SHELLS, help="your shell")
    shells.set_defaults(run=complete)
    return top


def _add_promotion(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    promotion = areas.add_parser("promotion", help="request, decide and run promotions").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = promotion.add_parser("list", parents=[limited], help="list the requests you can see, newest first")
    listing.add_argument("--state", help="only requests in this state, for example open")
    listing.add_argument("--repository", help="only requests from this repository, for example shop/api")
    listing.set_defaults(run=list_promotions)
    request = promotion.add_parser(
        "request", parents=[shared], help="request the promotion of a digest to an environment"
    )
    request.add_argument(
        "image", metavar="IMAGE", help="REPOSITORY:TAG or sha256:... of an image or an index (all platforms)"
    )
    for name, text in REQUEST_HELP.items():
        request.add_argument(f"--{name}", required=True, help=text)
    request.add_argument("--tag", default="", help='tag in the environment, in addition to "current"')
    add_wait(request)
    request.set_defaults(run=request_promotion)
    one = promotion.add_parser("show", parents=[shared], help="show one request")
    one.add_argument("id", type=positive, help="number of the request")
    one.set_defaults(run=show_promotion)
    for name, text in DECISIONS.items():
        command = promotion.add_parser(name, parents=[shared], help=text)
        command.add_argument("id", type=positive, help="number of the request")
        command.add_argument(
            "--reason",
            required=name in {"reject", "object"},
            default="",
            help="stored with the request and in the audit log",
        )
        command.set_defaults(run=decide, decision=name)
    _add_promotion_extras(promotion, shared)
    execute = promotion.add_parser("execute", parents=[shared], help="run a ready promotion: copy the image")
    execute.add_argument("id", type=positive, help="number of the request")
    add_wait(execute)
    execute.set_defaults(run=execute_promotion)


def _add_promotion_extras(promotion: Any, shared: argparse.ArgumentParser) -> None:
    """Add rollback, break-glass and its review, and the discussion of a request."""
    rollback = promotion.add_parser("rollback", parents=[shared], help="request a rollback to an earlier image")
    rollback.add_argument("repository", help="source repository, for example shop/api")
    rollback.add_argument("--environment", required=True, help="short name of the environment")
    rollback.add_argument("--to", default="", metavar="DIGEST", help="default: the image before the present one")
    rollback.add_argument("--reason", required=True, help="what is wrong with the present image")
    add_wait(rollback)
    rollback.set_defaults(run=request_rollback)
    glass = promotion.add_parser(
        "break-glass", parents=[shared], help="promote now, past what is not met; asks for your password"
    )
    glass.add_argument("image", metavar="IMAGE", help="REPOSITORY:TAG or sha256:... of an image or an index")
    for name, text in {**REQUEST_HELP, "incident": "number or address of the incident"}.items():
        glass.add_argument(f"--{name}", required=True, help=text)
    glass.set_defaults(run=break_glass)
    review = promotion.add_parser("review", parents=[shared], help="review a use of break-glass of another user")
    review.add_argument("id", type=positive, help="number of the request")
    review.add_argument("--outcome", required=True, choices=("justified", "unjustified"), help="what you found")
    review.add_argument("--comment", required=True, help="stored with the request and in the audit log")
    review.set_defaults(run=review_glass)
    verify = promotion.add_parser("verify", parents=[shared], help="say whether a promoted image works")
    verify.add_argument("id", type=positive, help="number of the request")
    verify.add_argument("--result", required=True, choices=("passed", "failed"), help="whether it works")
    verify.add_argument("--comment", required=True, help="what you checked")
    verify.set_defaults(run=verify_promotion)
    comment = promotion.add_parser("comment", parents=[shared], help="comment on a request, or answer in a thread")
    comment.add_argument("id", type=positive, help="number of the request")
    comment.add_argument("text", help="what to say")
    comment.add_argument("--reply-to", type=positive, metavar="THREAD", help="number of the thread to answer")
    comment.add_argument("--blocks", action="store_true", help="the request waits until the thread is resolved")
    comment.set_defaults(run=comment_on_request)
    resolve = promotion.add_parser("resolve", parents=[shared], help="resolve a thread of a request")
    resolve.add_argument("id", type=positive, help="number of the request")
    resolve.add_argument("thread", type=positive, help="number of the thread, as in show")
    resolve.set_defaults(run=resolve_thread)
    overrule = promotion.add_parser("overrule", parents=[shared], help="overrule an objection (environment.manage)")
    overrule.add_argument("id", type=positive, help="number of the request")
    overrule.add_argument("--voter", required=True, help="user name of the person who objected")
    overrule.add_argument("--reason", required=True, help="shown with the objection")
    overrule.set_defaults(run=overrule_objection)


def _add_image(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    image = areas.add_parser("image", help="list images, show one with its findings, and export it").add_subparsers(
        required=True, metavar="COMMAND"
    )
    images = image.add_parser("list", parents=[limited], help="list the images you can see, newest first")
    images.add_argument("--repository", help="only images in this repository, for example shop/api")
    images.add_argument("--tag", help="only images with this tag")
    images.add_argument("--all", action="store_true", help="also list artifacts, such as signatures and build contexts")
    images.add_argument("--full", action="store_true", help="print full digests")
    images.set_defaults(run=list_images)
    show = image.add_parser("show", parents=[shared], help="show one image and its findings")
    show.add_argument("image", metavar="IMAGE", help="REPOSITORY:TAG, REPOSITORY (for its tag latest), or sha256:...")
    show.set_defaults(run=show_image)
    exports.add_export(image)
    image_contents.add_contents(image, shared)
    sboms.add_sbom(image, shared)


def _add_rebuild(
    area: argparse.ArgumentParser, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser
) -> None:
    rebuild = area.add_subparsers(required=True, metavar="COMMAND")
    waves = rebuild.add_parser("list", parents=[limited], help="list the rebuild waves you can see, newest first")
    waves.add_argument("--state", help="only waves in this state, for example planned")
    waves.set_defaults(run=list_waves)
    plan = rebuild.add_parser(
        "plan", parents=[shared], help="plan a wave: the images built on a base, and how to rebuild them"
    )
    plan.add_argument("base", help="repository with :tag or @digest (default :latest)")
    plan.set_defaults(run=plan_wave)
    start = rebuild.add_parser("start", parents=[shared], help="plan and confirm a wave, or confirm a planned wave")
    start.add_argument("what", metavar="BASE|WAVE", help="base as for plan, or the number of a wave")
    add_wait(start)
    start.set_defaults(run=start_wave)
    wave = rebuild.add_parser("show", parents=[shared], help="show one wave and its images")
    wave.add_argument("wave", type=_wave, help="number of the wave, with or without W-")
    wave.set_defaults(run=show_wave)
    for name, text in STEERING.items():
        command = rebuild.add_parser(name, parents=[shared], help=text)
        command.add_argument("wave", type=_wave, help="number of the wave, with or without W-")
        command.set_defaults(run=steer_wave, step=name)


def sign_in(options: argparse.Namespace, transport: httpx.BaseTransport | None) -> None:
    """Check a token against the server, then store it."""
    url = client.checked_url(options.url)
    token = (getpass.getpass("Token: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not token.isascii() or not token.isprintable() or not token:
        raise CommandFailed("The token is empty or malformed. Pass it on standard input.", client.EXIT_USAGE)
    login = Login(url, token)
    me = Api(login, transport=transport).get("me/")
    path = client.save_login(login)
    if options.json:
        print(json.dumps({"url": url, "username": me["username"], "stored_in": str(path)}))
    say(f"Signed in as {me['username']}. The login is stored in {path}")


def status(options: argparse.Namespace, api: Api) -> None:
    """Print who is signed in; raises CommandFailed (exit code 4) when the token is no longer valid."""
    me = api.get("me/")
    url = client.stored_login().url
    if options.json:
        print(json.dumps({"url": url, "signed_in": True, **me}))
        return
    token = me["token"] or {}
    kind = f"{me['kind']}, admin" if me["is_admin"] else me["kind"]
    teams = [f"{team['slug']} ({', '.join(sorted({grant['role'] for grant in team['grants']})) or 'no role'})"
             for team in me["teams"]]  # fmt: skip
    tables.print_pairs(
        [
            ("Server", url),
            ("Signed in as", f"{me['username']} ({kind})"),
            ("Teams", ", ".join(teams) or "none"),
            ("Token", f"{token.get('name', '')} ({token.get('begins_with', '')})"),
            ("Expires", f"{tables.moment(token.get('expires_at'))} UTC"),
        ]
    )


def complete(options: argparse.Namespace) -> None:
    """Print a completion script."""
    print(completion.script(parser(), options.shell), end="")


def list_images(options: argparse.Namespace, api: Api) -> None:
    filters = {"repository": options.repository, "tag": options.tag}
    query = {name: value for name, value in filters.items() if value}
    found = api.rows("images/", most=options.limit if options.all else sys.maxsize, **query)
    rows = itertools.islice((row for row in found if options.all or row["kind"] != "artifact"), options.limit)
    columns = IMAGE_COLUMNS
    if options.full:
        columns = tuple(("DIGEST", lambda image: image["digest"]) if title == "DIGEST" else (title, value)
                        for title, value in columns)  # fmt: skip
    print_rows(rows, columns, options)


def show_image(options: argparse.Namespace, api: Api) -> None:
    digest = names.digest_of(options.image, api)
    image = api.get(f"images/{digest}/")
    findings = tables.by_severity(api.get(f"images/{digest}/findings/")["results"])
    if options.json:
        print(json.dumps(image | {"open_findings": findings}))
        return
    tables.print_pairs(
        [
            ("Name", tables.names(image)),
            ("Digest", image["digest"]),
            ("Platform", image["platform"] or image["kind"]),
            ("Distribution", image["distro"] or "unknown"),
            ("Size", tables.megabytes(image["size_bytes"])),
            ("Base", image["base_name"] or image["base_digest"] or "none declared"),
            ("Created", tables.moment(image["created_at"])),
            ("Scanned", tables.scanned(image)),
            ("Packages", tables.packages(image)),
            ("Findings", tables.findings(image)),
            *([("Problem", image["scan_problem"])] if image["scan_problem"] else []),
        ]
    )
    if findings:
        print()
        tables.print_table(findings, FINDING_COLUMNS)


def list_promotions(options: argparse.Namespace, api: Api) -> None:
    filters = {"state": options.state, "repository": options.repository}
    query = {name: value for name, value in filters.items() if value}
    print_rows(api.rows("promotions/", most=options.limit, **query), PROMOTION_COLUMNS, options)


def request_promotion(options: argparse.Namespace, api: Api) -> None:
    """Request a promotion; with `--wait`, raise CommandFailed unless it was decided, run and succeeded in time."""
    body = {name: getattr(options, name) for name in ("repository", "environment", "reason")}
    body["digest"] = names.digest_of(options.image, api)
    if options.tag:
        body["tag"] = options.tag
    finish(api.post("promotions/", body), UNDECIDED, options, api)


def show_promotion(options: argparse.Namespace, api: Api) -> None:
    print_one(api.get(f"promotions/{options.id}/"), options)


def decide(options: argparse.Namespace, api: Api) -> None:
    body = {"reason": options.reason} if options.reason else {}
    print_one(api.post(f"promotions/{options.id}/{options.decision}/", body), options)


def request_rollback(options: argparse.Namespace, api: Api) -> None:
    body = {"repository": options.repository, "environment": options.environment, "reason": options.reason}
    if options.to:
        body["digest"] = options.to
    finish(api.post("promotions/rollback/", body), UNDECIDED, options, api)


def break_glass(options: argparse.Namespace, api: Api) -> None:
    password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    body = {name: getattr(options, name) for name in ("repository", "environment", "reason", "incident")}
    body |= {"digest": names.digest_of(options.image, api), "password": password}
    print_one(api.post("promotions/break-glass/", body), options)


def review_glass(options: argparse.Namespace, api: Api) -> None:
    body = {"outcome": options.outcome, "comment": options.comment}
    print_one(api.post(f"promotions/{options.id}/review/", body), options)


def verify_promotion(options: argparse.Namespace, api: Api) -> None:
    body = {"passed": options.result == "passed", "comment": options.comment}
    print_one(api.post(f"promotions/{options.id}/verify/", body), options)


def comment_on_request(options: argparse.Namespace, api: Api) -> None:
    body = {"text": options.text, "is_blocking": options.blocks}
    if options.reply_to:
        body["reply_to"] = options.reply_to
    print_one(api.post(f"promotions/{options.id}/comment/", body), options)


def resolve_thread(options: argparse.Namespace, api: Api) -> None:
    print_one(api.post(f"promotions/{options.id}/resolve-thread/", {"thread": options.thread}), options)


def overrule_objection(options: argparse.Namespace, api: Api) -> None:
    body = {"voter": options.voter, "reason": options.reason}
    print_one(api.post(f"promotions/{options.id}/overrule/", body), options)


def execute_promotion(options: argparse.Namespace, api: Api) -> None:
    """Run the promotion; with `--wait`, raise CommandFailed unless it succeeded."""
    finish(api.post(f"promotions/{options.id}/execute/"), UNDER_WAY, options, api)


def finish(promotion: dict[str, Any], under_way: frozenset[str], options: argparse.Namespace, api: Api) -> None:
    """Print a promotion; with `--wait`, when it is no longer `under_way`. Raises CommandFailed unless it succeeded."""
    if options.wait:
        promotion = wait_until_done(f"promotions/{promotion['id']}/", promotion, under_way, options, api)
    print_one(promotion, options)
    if options.wait and promotion["state"] != "succeeded":
        check_timeout(promotion, under_way, options)
        raise CommandFailed(f"The promotion is {promotion['state']}. {promotion.get('failure', '')}".strip())


def list_waves(options: argparse.Namespace, api: Api) -> None:
    query = {"state": options.state} if options.state else {}
    print_rows(api.rows("rebuild-waves/", most=options.limit, **query), WAVE_COLUMNS, options)


def plan_wave(options: argparse.Namespace, api: Api) -> None:
    _print_wave(api.post("rebuild-waves/", {"base": options.base}), options)


def show_wave(options: argparse.Namespace, api: Api) -> None:
    _print_wave(api.get(f"rebuild-waves/{options.wave}/"), options)


def steer_wave(options: argparse.Namespace, api: Api) -> None:
    _print_wave(api.post(f"rebuild-waves/{options.wave}/{options.step}/"), options)


def start_wave(options: argparse.Namespace, api: Api) -> None:
    """Confirm a new or planned wave; with `--wait`, raise CommandFailed unless every image was rebuilt."""
    is_wave = options.what.removeprefix("W-").isdigit()
    if is_wave:
        wave = api.get(f"rebuild-waves/{_wave(options.what)}/")
    else:
        wave = api.post("rebuild-waves/", {"base": options.what})
    if wave["state"] == "planned" and (is_wave or wave["jobs"]):
        wave = api.post(f"rebuild-waves/{wave['id']}/confirm/")
        say(f"W-{wave['id']} confirmed.")
    elif wave["state"] == "planned":
        say("No image that you can rebuild is built on this base.")
        _print_wave(wave, options)
        return
    if options.wait:
        wave = _follow(wave, options, api)
    _print_wave(wave, options)
    if options.wait:
        check_timeout(wave, WAVE_UNDER_WAY, options)
    if wave["state"] in {"failed", "cancelled"}:
        raise CommandFailed(f"W-{wave['id']} failed." if wave["state"] == "failed" else
                            f"W-{wave['id']} was cancelled.")  # fmt: skip


def _follow(wave: dict[str, Any], options: argparse.Namespace, api: Api) -> dict[str, Any]:
    """Return the wave when it has finished or the time is up; print each change of an image's state."""
    printed_states: dict[int, str] = {}

    def print_changes(wave: dict[str, Any]) -> None:
        for job in wave["jobs"]:
            if printed_states.setdefault(job["id"], "waiting") != job["state"]:
                printed_states[job["id"]] = job["state"]
                say(f"{job['repository']}: {job['state']} {job['problem']}".rstrip())

    return wait_until_done(f"rebuild-waves/{wave['id']}/", wave, WAVE_UNDER_WAY, options, api, note=print_changes)


def _print_wave(wave: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        print_one(wave, options)
        return
    print_one({name: value for name, value in wave.items() if name not in {"jobs", "skipped"}}, options)
    print_rows(wave["jobs"], JOB_COLUMNS, options)
    for skipped in wave["skipped"]:
        say(f"Skipped: {skipped['repository']}: {skipped['reason']}")


def _wave(text: str) -> int:
    return positive(text.removeprefix("W-"))


def _count(names: list[str] | None) -> int | None:
    return None if names is None else len(names)


def _version() -> str:
    """Return the version of the installed package, or of the checkout that runs."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text("utf-8"))["project"]["version"])
    try:
        return metadata.version("gravingdock")
    except metadata.PackageNotFoundError:
        return "unknown"
