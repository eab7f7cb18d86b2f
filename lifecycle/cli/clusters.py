"""The area `cluster` of the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lifecycle.cli import client
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_fields, print_rows, say
from lifecycle.cli.tables import Column, print_table

COLUMNS: Final[Sequence[Column]] = (
    ("CLUSTER", lambda row: row["slug"]),
    ("TEAM", lambda row: row["team"]),
    ("KIND", lambda row: row["kind"]),
    ("MODE", lambda row: row["mode"]),
    ("TAGS", lambda row: row["tags"]),
    ("UNBOUND", lambda row: row["unbound"]),
)
BINDING_COLUMNS: Final[Sequence[Column]] = (
    ("NAMESPACES", lambda row: row["pattern"]),
    ("ENVIRONMENT", lambda row: row["environment"]),
    ("MODE", lambda row: row["mode"] or "as cluster"),
    ("ALSO FROM", lambda row: ", ".join(row["allowed_hosts"])),
)
REFUSED_COLUMNS: Final[Sequence[Column]] = (
    ("WORKLOAD", lambda row: f"{row['workload_kind']} {row['namespace']}/{row['workload_name']}"),
    ("WHERE", lambda row: row["where"]),
    ("IMAGE", lambda row: row["reference"]),
    ("RESULT", lambda row: row["code"]),
    ("REASON", lambda row: row["reason"]),
)
ANNOTATED_COLUMNS: Final[Sequence[Column]] = (
    ("WORKLOAD", lambda row: f"{row['workload_kind']} {row['namespace']}/{row['workload_name']}"),
    ("COUNTS", lambda row: "yes" if row["breakglass_counts"] else "no"),
    ("BREAK-GLASS", lambda row: row["breakglass"]),
)
_MODES: Final = ("off", "observe", "warn", "enforce")


def add_area(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `cluster` with its commands."""
    area = areas.add_parser("cluster", help="set up clusters, and what may run in their namespaces").add_subparsers(
        required=True, metavar="COMMAND"
    )
    area.add_parser("list", parents=[limited], help="list the clusters you can see").set_defaults(run=list_clusters)
    show = area.add_parser("show", parents=[shared], help="show a cluster with its bindings")
    show.add_argument("cluster", help="short name of the cluster")
    show.set_defaults(run=show_cluster)
    create = area.add_parser("create", parents=[shared], help="add a cluster to a team")
    create.add_argument("cluster", help="short name of the cluster")
    create.add_argument("--team", required=True, help="short name of the team")
    create.add_argument("--kind", choices=("kubernetes", "docker", "ecs", "generic"), help="default: kubernetes")
    _add_settings(create)
    create.set_defaults(run=create_cluster)
    change = area.add_parser("set", parents=[shared], help="change settings of a cluster")
    change.add_argument("cluster", help="short name of the cluster")
    _add_settings(change)
    change.add_argument(
        "--yes", action="store_true", help="with --mode enforce: although something that runs would be refused"
    )
    change.set_defaults(run=set_cluster)
    delete = area.add_parser("delete", parents=[shared], help="delete a cluster; its history goes after 90 days")
    delete.add_argument("cluster", help="short name of the cluster")
    delete.add_argument("--yes", action="store_true", help="delete it; without, only say what would end")
    delete.set_defaults(run=delete_cluster)
    would = area.add_parser(
        "forecast", parents=[shared], help="say what enforce would refuse of what runs; exit code 3 when there is some"
    )
    would.add_argument("cluster", help="short name of the cluster")
    would.set_defaults(run=forecast_cluster)
    bind = area.add_parser("bind", parents=[shared], help="replace all bindings of a cluster")
    bind.add_argument("cluster", help="short name of the cluster")
    bind.add_argument(
        "--file",
        metavar="FILE",
        help='JSON as `cluster show --json` has it: {"bindings": [...]}; instead of --binding',
    )
    bind.add_argument(
        "--binding",
        action="append",
        default=[],
        type=_binding,
        metavar="PATTERN=ENVIRONMENT[:MODE]",
        help="for example prod-*=production:enforce or dev=shop/dev; all given bindings replace the present ones",
    )
    bind.add_argument("--yes", action="store_true", help="although something that runs would be refused then")
    bind.set_defaults(run=bind_namespaces)
    secret = area.add_parser("secret", parents=[shared], help="make a new secret; it is shown once")
    secret.add_argument("cluster", help="short name of the cluster")
    secret.add_argument("--kind", choices=("admission", "alerts"), default="admission", help="default: admission")
    secret.set_defaults(run=create_secret)


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--mode", choices=_MODES, help="what happens with images that may not run")
    command.add_argument("--tags", choices=("resolve", "require_digest"), help="whether images can be named by tag")
    command.add_argument("--unbound", choices=("observe", "deny"), help="what counts in namespaces without a binding")
    command.add_argument(
        "--breakglass-subject",
        action="append",
        metavar="user:NAME|group:NAME",
        help="who may break glass; all given subjects replace the present ones",
    )
    command.add_argument("--no-breakglass-subjects", action="store_true", help="nobody may break glass")
    command.add_argument(
        "--mutate",
        action=argparse.BooleanOptionalAction,
        help="whether images of new Pods are named by digest, by a webhook of the manifest",
    )
    command.add_argument("--stale-after", type=int, metavar="SECONDS", help="age at which a snapshot is too old")


def list_clusters(options: argparse.Namespace, api: Api) -> None:
    print_rows(api.rows("clusters/", most=options.limit), COLUMNS, options)


def show_cluster(options: argparse.Namespace, api: Api) -> None:
    document = api.get(f"clusters/{_slug(options)}/")
    bindings = api.get(f"clusters/{_slug(options)}/bindings/")["bindings"]
    if options.json:
        print(json.dumps({**document, "bindings": bindings}))
        return
    print_fields(document, options)
    print_rows(bindings, BINDING_COLUMNS, options)


def create_cluster(options: argparse.Namespace, api: Api) -> None:
    body = {"slug": options.cluster, "team": options.team, **_settings(options)}
    if options.kind:
        body["kind"] = options.kind
    print_fields(api.post("clusters/", body), options)


def set_cluster(options: argparse.Namespace, api: Api) -> None:
    """Change what was given, only if nobody changed the cluster since it was read here."""
    body = _settings(options)
    if not body:
        raise CommandFailed("Give at least one setting to change.", client.EXIT_USAGE)
    before = api.get(f"clusters/{_slug(options)}/")
    if options.mode == "enforce" and before["mode"] != "enforce" and not options.yes:
        found = api.get(f"clusters/{_slug(options)}/forecast/")
        if found["refused_count"] or found["annotated_count"]:
            _print_forecast(found)
            raise CommandFailed("Nothing is changed. To enforce nevertheless, add --yes.", client.EXIT_POLICY)
    revision = before["revision"]
    print_fields(api.patch(f"clusters/{_slug(options)}/", body, revision=revision), options)


def delete_cluster(options: argparse.Namespace, api: Api) -> None:
    """Delete it, only if nobody changed it since it was read here; without --yes, only say what would end."""
    cluster = api.get(f"clusters/{_slug(options)}/")
    if not options.yes:
        print_fields(api.get(f"clusters/{_slug(options)}/contents/"), options)
        raise CommandFailed("Nothing is changed. To delete the cluster, add --yes.", client.EXIT_USAGE)
    api.delete(f"clusters/{_slug(options)}/", revision=str(cluster["revision"]))
    say(f"{options.cluster} is deleted. Remove its webhooks and the agent from the cluster.")


def forecast_cluster(options: argparse.Namespace, api: Api) -> None:
    found = api.get(f"clusters/{_slug(options)}/forecast/")
    if options.json:
        print(json.dumps(found))
    else:
        _print_forecast(found)
    if found["refused_count"]:
        raise CommandFailed("Enforce would refuse some of what runs.", client.EXIT_POLICY)


def _print_forecast(found: dict[str, Any]) -> None:
    refused = [row | image for row in found["refused"] for image in row["images"]]
    print_table(refused, REFUSED_COLUMNS)
    if found["annotated"]:
        print_table(found["annotated"], ANNOTATED_COLUMNS)
    say(
        f"{found['refused_count']} of {found['workloads']} workloads would be refused when their Pods start again."
        f" {found['annotated_count']} have a break-glass annotation."
    )
    for sentence in found["unknown"]:
        say(sentence)


def bind_namespaces(options: argparse.Namespace, api: Api) -> None:
    if options.file and options.binding:
        raise CommandFailed("Give either --file or --binding.", client.EXIT_USAGE)
    bindings = json.loads(Path(options.file).read_text("utf-8"))["bindings"] if options.file else options.binding
    if not options.yes:
        found = api.post(f"clusters/{_slug(options)}/forecast/", {"bindings": bindings})
        if found["refused_count"]:
            _print_forecast(found)
            raise CommandFailed("Nothing is changed. To bind them nevertheless, add --yes.", client.EXIT_POLICY)
    answer = api.put(f"clusters/{_slug(options)}/bindings/", {"bindings": bindings})
    print_rows(answer["bindings"], BINDING_COLUMNS, options)


def create_secret(options: argparse.Namespace, api: Api) -> None:
    print_fields(api.post(f"clusters/{_slug(options)}/secrets/", {"kind": options.kind}), options)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    values = {
        "mode": options.mode,
        "tags": options.tags,
        "unbound": options.unbound,
        "breakglass_subjects": [] if options.no_breakglass_subjects else options.breakglass_subject,
        "stale_after_s": options.stale_after,
        "mutate": options.mutate,
    }
    return {name: value for name, value in values.items() if value is not None}


def _binding(text: str) -> dict[str, Any]:
    pattern, is_given, rest = text.partition("=")
    environment, _, mode = rest.partition(":")
    if not is_given or not pattern or not environment or mode not in {"", *_MODES}:
        raise argparse.ArgumentTypeError("write a binding as PATTERN=ENVIRONMENT or PATTERN=ENVIRONMENT:MODE")
    return {"pattern": pattern, "environment": environment, **({"mode": mode} if mode else {})}


def _slug(options: argparse.Namespace) -> str:
    slug: str = options.cluster
    if not slug.isascii() or not slug.replace("-", "a").isalnum():
        raise CommandFailed("Enter the short name of a cluster.", client.EXIT_USAGE)
    return slug
