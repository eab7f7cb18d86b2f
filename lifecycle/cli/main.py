"""`gravingdock`: manage images, promotions and rebuilds from a terminal or a pipeline.

Data goes to standard output, messages to standard error. No colours are printed.
Exit codes: 0 ok, 1 error, 2 usage, 3 refused by the policy, 4 not authenticated, 5 timed out.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import httpx

from lifecycle.cli import client
from lifecycle.cli.client import Api, CommandFailed, Login

IMAGE_COLUMNS: Final = ("digest", "kind", "platform", "distro", "size_bytes", "package_count", "names")
PROMOTION_COLUMNS: Final = ("id", "state", "repository", "environment", "tag", "digest", "requested_by")
WAVE_COLUMNS: Final = ("id", "state", "base", "trigger", "planned_by", "created_at", "jobs_by_state")
JOB_COLUMNS: Final = (
    "level", "repository", "team", "state", "method", "would_fix", "fixed", "introduced", "still_open",
    "remaining_count", "seconds",
)  # fmt: skip
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
        if options.run is sign_in:
            sign_in(options, transport)
        else:
            options.run(options, Api(client.stored_login(), transport=transport))
        sys.stdout.flush()
    except CommandFailed as error:
        print(_clean(str(error), keep="\n"), file=sys.stderr)
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
        prog="gravingdock", description="Manage the life of container images through the API."
    )
    areas = top.add_subparsers(required=True, metavar="AREA")

    auth = areas.add_parser("auth", help="sign in").add_subparsers(required=True, metavar="COMMAND")
    login = auth.add_parser("login", help="check and store a token, from a prompt or standard input")
    login.add_argument("--url", required=True, help="address of the server")
    login.set_defaults(run=sign_in)
    auth.add_parser("status", parents=[shared], help="check the stored token").set_defaults(run=status)

    image = areas.add_parser("image", help="images").add_subparsers(required=True, metavar="COMMAND")
    images = image.add_parser("list", parents=[limited], help="list the images you can see, newest first")
    images.add_argument("--repository", help="only images in this repository, for example shop/api")
    images.add_argument("--tag", help="only images with this tag")
    images.set_defaults(run=list_images)
    show = image.add_parser("show", parents=[shared], help="show one image and its findings")
    show.add_argument("digest", help="sha256:...; `image list --repository --tag` prints it")
    show.set_defaults(run=show_image)

    promotion = areas.add_parser("promotion", help="promotions").add_subparsers(required=True, metavar="COMMAND")
    listing = promotion.add_parser("list", parents=[limited], help="list the requests you can see, newest first")
    listing.add_argument("--state", help="only requests in this state, for example open")
    listing.add_argument("--repository", help="only requests from this repository, for example shop/api")
    listing.set_defaults(run=list_promotions)
    request = promotion.add_parser(
        "request", parents=[shared], help="request the promotion of a digest to an environment"
    )
    request.add_argument("digest", help="sha256:... of an image or of an index (all platforms)")
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

    _add_rebuild(areas.add_parser("rebuild", help="rebuilds"), shared, limited)
    return top


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
    Api(login, transport=transport).get("images/", limit="1")
    _say(f"Signed in. The login is stored in {client.save_login(login)}")


def status(options: argparse.Namespace, api: Api) -> None:
    """Print the server of the login; raises CommandFailed (exit code 4) when the token is no longer valid."""
    api.get("images/", limit="1")
    _print_one({"url": client.stored_login().url, "signed_in": True}, options)


def list_images(options: argparse.Namespace, api: Api) -> None:
    filters = {"repository": options.repository, "tag": options.tag}
    query = {name: value for name, value in filters.items() if value}
    rows = api.rows("images/", most=options.limit, **query)
    _print_rows(rows if options.json else map(_named, rows), IMAGE_COLUMNS, options)


def _named(image: dict[str, Any]) -> dict[str, Any]:
    """Return an image with `names` for a table: `shop/api:1.0`, or the repository alone for an untagged image."""
    places = image["places"]
    names = [f"{place['repository']}:{tag}" for place in places for tag in place["tags"]]
    names += [place["repository"] for place in places if not place["tags"]]
    return image | {"names": ", ".join(names)}


def show_image(options: argparse.Namespace, api: Api) -> None:
    image = api.get(f"images/{_digest(options.digest)}/")
    findings = api.get(f"images/{_digest(options.digest)}/findings/")["results"]
    if options.json:
        _print_one(image | {"open_findings": findings}, options)
        return
    _print_one(image, options)
    _say(f"{len(findings)} {'finding' if len(findings) == 1 else 'findings'}:")
    _print_rows(findings, ("severity", "state", "advisory", "purl", "fixed_version"), options)


def list_promotions(options: argparse.Namespace, api: Api) -> None:
    filters = {"state": options.state, "repository": options.repository}
    query = {name: value for name, value in filters.items() if value}
    _print_rows(api.rows("promotions/", most=options.limit, **query), PROMOTION_COLUMNS, options)


def request_promotion(options: argparse.Namespace, api: Api) -> None:
    body = {name: getattr(options, name) for name in ("digest", "repository", "environment", "reason")}
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
    # The table shows lists of advisories as counts; --json prints the lists.
    counted = ("would_fix", "fixed", "introduced", "still_open")
    rows = [job | {name: None if job[name] is None else len(job[name]) for name in counted} for job in wave["jobs"]]
    _print_rows(rows, JOB_COLUMNS, options)
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


def _clean(value: Any, *, keep: str = "") -> str:
    """Return a value as text for a terminal, without control characters: image labels must not move the cursor."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in text)


def _say(text: str) -> None:
    print(_clean(text), file=sys.stderr)


def _print_one(document: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(document))
        return
    width = max(map(len, document))
    for name, value in document.items():
        print(f"{name:<{width}}  {_clean(value)}".rstrip())


def _print_rows(rows: Iterable[dict[str, Any]], columns: Sequence[str], options: argparse.Namespace) -> None:
    """Print a table, or with `--json` one object per line."""
    if options.json:
        for row in rows:
            print(json.dumps(row))
        return
    lines = [[column.upper() for column in columns]] + [[_clean(row.get(name)) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())
