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
import re
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import httpx

from lifecycle.cli import client, completion, tables
from lifecycle.cli.client import Api, CommandFailed, Login
from lifecycle.cli.tables import Column

IMAGE_COLUMNS: Final[Sequence[Column]] = (
    ("NAME", tables.names),
    ("DIGEST", lambda image: tables.short(image["digest"])),
    ("PLATFORM", lambda image: image["platform"] or image["kind"]),
    ("DISTRO", lambda image: image["distro"]),
    ("SIZE", lambda image: tables.megabytes(image["size_bytes"])),
    ("PACKAGES", lambda image: image["package_count"] if image["scanned_at"] else "unknown"),
    ("FINDINGS", tables.findings),
)
FINDING_COLUMNS: Final[Sequence[Column]] = (
    ("SEVERITY", lambda finding: finding["severity"]),
    ("ID", tables.cve),
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
WAVE_UNDER_WAY: Final = frozenset({"running"})
POLL_S: Final = 1.0
WAIT_S: Final = 3600  # limit of `--wait` without --timeout
REQUEST_HELP: Final = {
    "repository": "source repository, for example shop/api",
    "environment": "target environment, for example staging",
    "reason": "reason for the request; approvers see it",
}
DECISIONS: Final = {
    "approve": "approve a request of another user",
    "reject": "reject a request permanently; requires --reason",
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
        elif options.run is sign_in:
            sign_in(options, transport)
        else:
            options.run(options, Api(client.stored_login(), transport=transport))
        sys.stdout.flush()
    except CommandFailed as error:
        print(tables.plain(str(error), keep="\n"), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return client.EXIT_ERROR
    except BrokenPipeError:  # for example `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush does not fail
        return client.EXIT_ERROR
    return client.EXIT_OK


def parser() -> argparse.ArgumentParser:
    """Return the argument parser with all commands."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print JSON")
    limited = argparse.ArgumentParser(add_help=False, parents=[shared])
    limited.add_argument("--limit", type=_positive, default=50, help="maximum number of rows (default %(default)s)")
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

    image = areas.add_parser("image", help="list images, and show one with its findings").add_subparsers(
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
    request.set_defaults(run=request_promotion)
    one = promotion.add_parser("show", parents=[shared], help="show one request")
    one.add_argument("id", type=_positive, help="number of the request")
    one.set_defaults(run=show_promotion)
    for name, text in DECISIONS.items():
        command = promotion.add_parser(name, parents=[shared], help=text)
        command.add_argument("id", type=_positive, help="number of the request")
        command.add_argument(
            "--reason", required=name == "reject", default="", help="stored with the request and in the audit log"
        )
        command.set_defaults(run=decide, decision=name)
    execute = promotion.add_parser("execute", parents=[shared], help="run a ready promotion: copy the image")
    execute.add_argument("id", type=_positive, help="number of the request")
    _add_wait(execute)
    execute.set_defaults(run=execute_promotion)

    _add_rebuild(areas.add_parser("rebuild", help="plan, run and follow rebuild waves"), shared, limited)
    shells = areas.add_parser("completion", help="print the completion script of a shell")
    shells.add_argument("shell", choices=completion.SHELLS, help="your shell")
    shells.set_defaults(run=complete)
    return top


def _area(areas: Any, name: str, text: str) -> Any:
    return areas.add_parser(name, help=text, description=f"{text[:1].upper()}{text[1:]}.").add_subparsers(
        required=True, metavar="COMMAND"
    )


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
    _add_wait(start)
    start.set_defaults(run=start_wave)
    wave = rebuild.add_parser("show", parents=[shared], help="show one wave and its images")
    wave.add_argument("wave", type=_wave, help="number of the wave, with or without W-")
    wave.set_defaults(run=show_wave)
    for name, text in STEERING.items():
        command = rebuild.add_parser(name, parents=[shared], help=text)
        command.add_argument("wave", type=_wave, help="number of the wave, with or without W-")
        command.set_defaults(run=steer_wave, step=name)


def _add_wait(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--wait", action="store_true", help="wait until it finishes; exit 0 only if everything succeeded"
    )
    command.add_argument("--timeout", type=_positive, default=WAIT_S, metavar="SECONDS",
                         help="with --wait: exit 5 after this time (default %(default)s)")  # fmt: skip


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
    _say(f"Signed in as {me['username']}. The login is stored in {path}")


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
    _print_rows(rows, columns, options)


def show_image(options: argparse.Namespace, api: Api) -> None:
    digest = _resolve(options.image, api)
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
            ("Scanned", tables.moment(image["scanned_at"]) or "not yet"),
            ("Packages", image["package_count"] if image["scanned_at"] else "unknown"),
            ("Findings", tables.findings(image)),
            *([("Problem", image["scan_problem"])] if image["scan_problem"] else []),
        ]
    )
    if findings:
        print()
        tables.print_table(findings, FINDING_COLUMNS)


def _resolve(text: str, api: Api) -> str:
    """Return the digest of `sha256:...`, `repository@digest`, `repository:tag`, or `repository` (its tag latest).

    Raises CommandFailed if the text is none of these, or no image has this name.
    """
    if text.startswith(("sha256:", "sha512:")):
        return _digest(text)
    repository, at, digest = text.partition("@")
    if at:
        return _digest(digest)
    repository, _, tag = text.rpartition(":") if ":" in text.rpartition("/")[2] else (text, "", "latest")
    if not re.fullmatch(r"[a-z0-9]+([._/-]+[a-z0-9]+)*", repository) or not re.fullmatch(r"\w[\w.-]{0,127}", tag):
        raise CommandFailed("Name an image as REPOSITORY:TAG or sha256:...", client.EXIT_USAGE)
    image = next(api.rows("images/", most=1, repository=repository, tag=tag), None)
    if image is None:
        raise CommandFailed(f"No image {repository}:{tag}, or you don't have access.")
    return str(image["digest"])


def list_promotions(options: argparse.Namespace, api: Api) -> None:
    filters = {"state": options.state, "repository": options.repository}
    query = {name: value for name, value in filters.items() if value}
    _print_rows(api.rows("promotions/", most=options.limit, **query), PROMOTION_COLUMNS, options)


def request_promotion(options: argparse.Namespace, api: Api) -> None:
    body = {name: getattr(options, name) for name in ("repository", "environment", "reason")}
    body["digest"] = _resolve(options.image, api)
    if options.tag:
        body["tag"] = options.tag
    _print_one(api.post("promotions/", body), options)


def show_promotion(options: argparse.Namespace, api: Api) -> None:
    _print_one(api.get(f"promotions/{options.id}/"), options)


def decide(options: argparse.Namespace, api: Api) -> None:
    body = {"reason": options.reason} if options.reason else {}
    _print_one(api.post(f"promotions/{options.id}/{options.decision}/", body), options)


def execute_promotion(options: argparse.Namespace, api: Api) -> None:
    """Run the promotion; with `--wait`, raise CommandFailed unless it succeeded."""
    promotion = api.post(f"promotions/{options.id}/execute/")
    if options.wait:
        promotion = _wait_until_done(f"promotions/{options.id}/", promotion, UNDER_WAY, options, api)
    _print_one(promotion, options)
    if options.wait and promotion["state"] != "succeeded":
        _check_timeout(promotion, UNDER_WAY, options)
        raise CommandFailed(f"The promotion is {promotion['state']}. {promotion.get('failure', '')}".strip())


def list_waves(options: argparse.Namespace, api: Api) -> None:
    query = {"state": options.state} if options.state else {}
    _print_rows(api.rows("rebuild-waves/", most=options.limit, **query), WAVE_COLUMNS, options)


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
        _say(f"W-{wave['id']} confirmed.")
    elif wave["state"] == "planned":
        _say("No image that you can rebuild is built on this base.")
        _print_wave(wave, options)
        return
    if options.wait:
        wave = _follow(wave, options, api)
    _print_wave(wave, options)
    if options.wait:
        _check_timeout(wave, WAVE_UNDER_WAY, options)
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
                _say(f"{job['repository']}: {job['state']} {job['problem']}".rstrip())

    return _wait_until_done(f"rebuild-waves/{wave['id']}/", wave, WAVE_UNDER_WAY, options, api, note=print_changes)


def _wait_until_done(
    path: str,
    now: dict[str, Any],
    under_way: frozenset[str],
    options: argparse.Namespace,
    api: Api,
    *,
    note: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Poll `path` until its state is not in `under_way` or `--timeout` is up; return the last document."""
    until = time.monotonic() + options.timeout
    while True:
        note(now)
        if now["state"] not in under_way or time.monotonic() >= until:
            return now
        time.sleep(POLL_S)
        try:
            now = api.get(path)
        except client.Unreachable as error:  # a restart of the server does not end the work
            _say(str(error))


def _check_timeout(document: dict[str, Any], under_way: frozenset[str], options: argparse.Namespace) -> None:
    if document["state"] in under_way:
        raise CommandFailed(f"Timed out: still {document['state']} after {options.timeout} s.", client.EXIT_TIMED_OUT)


def _print_wave(wave: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        _print_one(wave, options)
        return
    _print_one({name: value for name, value in wave.items() if name not in {"jobs", "skipped"}}, options)
    _print_rows(wave["jobs"], JOB_COLUMNS, options)
    for skipped in wave["skipped"]:
        _say(f"Skipped: {skipped['repository']}: {skipped['reason']}")


def _wave(text: str) -> int:
    return _positive(text.removeprefix("W-"))


def _digest(text: str) -> str:
    name, _, value = text.partition(":")
    if name not in {"sha256", "sha512"} or not value or set(value) - set("0123456789abcdef"):
        raise CommandFailed("Invalid digest. A digest looks like sha256:9f86d0...", client.EXIT_USAGE)
    return text


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError("expected a whole number of at least 1")
    return int(text)


def _count(names: list[str] | None) -> int | None:
    return None if names is None else len(names)


def _say(text: str) -> None:
    print(tables.plain(text), file=sys.stderr)


def _print_one(document: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(document))
        return
    tables.print_pairs(
        (name.replace("_", " ").capitalize(), _readable(name, value)) for name, value in document.items()
    )


def _readable(name: str, value: Any) -> Any:
    """Return a value of a document for people: times in minutes, and lists of objects as one line each."""
    if isinstance(value, str) and name.endswith(("_at", "_by")) and "T" in value:
        return tables.moment(value)
    if isinstance(value, list):
        return "; ".join(_item(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{inner} {key}" for key, inner in value.items())
    return value


def _item(item: Any) -> str:
    if not isinstance(item, dict):
        return tables.plain(item)
    if "summary" in item:  # a requirement of a promotion
        return f"{item['title']}: {item['status']} ({item['summary']})"
    if "voter" in item:
        return f"{item['voter']}: {item['value']}" + (f" ({item['comment']})" if item["comment"] else "")
    return ", ".join(f"{name} {tables.plain(value)}" for name, value in item.items())


def _print_rows(rows: Iterable[dict[str, Any]], columns: Sequence[Column], options: argparse.Namespace) -> None:
    """Print a table, or with `--json` one object per line."""
    if options.json:
        for row in rows:
            print(json.dumps(row))
        return
    tables.print_table(rows, columns)


def _version() -> str:
    """Return the version of the installed package, or of the checkout that runs."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text("utf-8"))["project"]["version"])
    try:
        return metadata.version("gravingdock")
    except metadata.PackageNotFoundError:
        return "unknown"
