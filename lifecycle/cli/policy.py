"""The areas `policy` and `waiver` of the command line: policies as files, checks for pipelines, and exceptions."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from lifecycle.cli import client, names, tables, yaml_texts
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_fields, print_rows
from lifecycle.cli.tables import Column

Run = Callable[[argparse.Namespace, Api], None]
SCOPE_HELP: Final = "site, team:shop, or team:shop:production"
FILE_BYTES_MAX: Final = 1024 * 1024
WAIVER_COLUMNS: Final[Sequence[Column]] = (
    ("WAIVER", lambda row: f"WV-{row['id']}"),
    ("STATE", lambda row: row["state"]),
    ("RULE", lambda row: row["rule"]),
    ("FINDING", lambda row: " ".join(part for part in (row["advisory"], row["package"]) if part) or "all"),
    ("REPOSITORY", lambda row: row["repository"] or "all"),
    ("ENVIRONMENT", lambda row: row["environment"] or "all"),
    ("UNTIL", lambda row: tables.moment(row["until"])),
    ("REQUESTED BY", lambda row: row["requested_by"]),
    ("DECIDED BY", lambda row: row["decided_by"] or ""),
)
_DECISIONS: Final = {
    "approve": "approve a waiver of another user",
    "reject": "reject a waiver permanently; requires --reason",
    "revoke": "end a waiver before its time",
}


def add_areas(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the areas `policy` and `waiver` with their commands."""
    policy = areas.add_parser("policy", help="policies as files, and whether an image may go").add_subparsers(
        required=True, metavar="COMMAND"
    )
    export = policy.add_parser("export", parents=[shared], help="print the rules of a scope as a policy file")
    export.add_argument("scope", help=SCOPE_HELP)
    export.set_defaults(run=export_policy)
    for name, text, run in (
        ("diff", "show what a policy file would change; exit 1 when it differs", diff_policy),
        ("apply", "save a policy file as the next revision", apply_policy),
        ("test", "run the test cases of a policy file; exit 1 when one fails", run_cases),
    ):
        command = policy.add_parser(name, parents=[shared], help=text)
        command.add_argument("file", help="policy file, YAML or JSON; - for standard input")
        command.set_defaults(run=run)
        if name == "apply":
            command.add_argument("--note", default="", help="why; stored with the revision")
    check = policy.add_parser("check", parents=[shared], help="ask whether an image may go; exit 3 with the reasons")
    check.add_argument("image", metavar="IMAGE", help="REPOSITORY:TAG or sha256:...")
    check.add_argument("--env", required=True, metavar="ENVIRONMENT", help="target environment, for example production")
    check.add_argument("--repository", default="", help="source repository, if the image is in several")
    check.set_defaults(run=check_image)
    _add_waivers(areas, shared, limited)


def _add_waivers(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    waiver = areas.add_parser("waiver", help="request and decide exceptions to rules").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = waiver.add_parser("list", parents=[limited], help="list the waivers you can see, newest first")
    listing.add_argument("--state", help="only waivers in this state, for example requested")
    listing.set_defaults(run=list_waivers)
    request = waiver.add_parser("request", parents=[shared], help="request an exception to a rule")
    request.add_argument("rule", help="key of the rule")
    for name, text in {
        "team": "team whose images it covers",
        "reason": "why the rule can be broken",
        "ticket": "where the work to end it is tracked",
        "until": "when it ends, for example 2026-12-24T12:00:00Z",
    }.items():
        request.add_argument(f"--{name}", required=True, help=text)
    for name, text in {
        "repository": "only images of this source repository",
        "environment": "only in this environment",
        "digest": "only this image",
        "advisory": "only this finding, for example CVE-2026-1",
        "package": "only in this package, with its namespace: debian/openssl",
    }.items():
        request.add_argument(f"--{name}", default="", help=text)
    request.set_defaults(run=request_waiver)
    for name, text in _DECISIONS.items():
        command = waiver.add_parser(name, parents=[shared], help=text)
        command.add_argument("waiver", help="number of the waiver, with or without WV-")
        command.add_argument("--reason", required=name == "reject", default="", help="stored with the waiver")
        command.set_defaults(run=decide_waiver, decision=name)


def export_policy(options: argparse.Namespace, api: Api) -> None:
    """Print a policy file: the scope, its rules and its test cases."""
    document = api.get(f"policies/{options.scope}/")
    content = {name: document[name] for name in ("scope", "rules", "cases")}
    print(json.dumps(content) if options.json else yaml.safe_dump(content, sort_keys=False, allow_unicode=True), end="")


def diff_policy(options: argparse.Namespace, api: Api) -> None:
    """Print one line for each rule that differs; raises CommandFailed (exit 1) when there is one."""
    content = _file(options.file)
    stored = api.get(f"policies/{content['scope']}/")
    lines = _differences(stored["rules"], content["rules"])
    print(json.dumps({"differences": lines})) if options.json else print("\n".join(lines) or "No difference.")
    if lines:
        sys.stdout.flush()
        raise CommandFailed(f"{len(lines)} difference{'s' if len(lines) != 1 else ''}.")


def _differences(stored: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[str]:
    old, new = {rule.get("key"): rule for rule in stored}, {rule.get("key"): rule for rule in wanted}
    lines = [f"+ {key}" for key in new if key not in old] + [f"- {key}" for key in old if key not in new]
    for key, rule in new.items():
        for name, value in rule.items() if key in old else ():
            before = old[key].get(name)
            if isinstance(value, dict) and isinstance(before, dict):
                lines += [f"~ {key}: {name}.{inner} {before.get(inner)} -> {after}"
                          for inner, after in value.items() if before.get(inner) != after]  # fmt: skip
            elif before != value:
                lines.append(f"~ {key}: {name} {before} -> {value}")
    return lines


def apply_policy(options: argparse.Namespace, api: Api) -> None:
    """Save the file's rules; raises CommandFailed when they are refused or somebody saved meanwhile."""
    content = _file(options.file)
    stored = api.get(f"policies/{content['scope']}/")
    body = {"rules": content["rules"], "cases": content["cases"], "note": options.note}
    saved = api.put(f"policies/{content['scope']}/", body, etag=f'"{stored["scope"]}.{stored["revision"]}"')
    if options.json:
        print(json.dumps(saved))
    elif saved["revision"] == stored["revision"]:
        print(f"{saved['scope']} has these rules already: revision {saved['revision']}.")
    else:
        print(f"Saved revision {saved['revision']} of {saved['scope']}: {len(saved['rules'])} rules.")


def run_cases(options: argparse.Namespace, api: Api) -> None:
    """Run the test cases beside the rules; raises CommandFailed (exit 1) when one fails."""
    content = _file(options.file)
    found = api.post("policies/test/", {"rules": content["rules"], "cases": content["cases"]})
    if options.json:
        print(json.dumps(found))
    else:
        for result in found["results"]:
            print(tables.plain(f"{'FAILED' if result['problems'] else 'ok'}  {result['name']}"))
            for problem in result["problems"]:
                print(tables.plain(f"        {problem}"))
    failed = sum(bool(result["problems"]) for result in found["results"])
    if failed:
        sys.stdout.flush()
        raise CommandFailed(f"{failed} of {len(found['results'])} cases failed.")


def check_image(options: argparse.Namespace, api: Api) -> None:
    """Print what the policies say about an image; raises CommandFailed (exit 3) with the reasons when it may not go."""
    digest = names.digest_of(options.image, api)
    repository = options.repository or names.parts_of(options.image)[0]
    query = {"environment": options.env} | ({"repository": repository} if repository else {})
    verdict = api.get(f"images/{digest}/verdict/", **query)
    if options.json:
        print(json.dumps(verdict))
    else:
        for rule in verdict["rules"]:
            print(tables.plain(f"{rule['status']:<15} {rule['title']}: {rule['summary']}"))
    if not verdict["allowed"]:
        sys.stdout.flush()
        lines = [f"The policy of {options.env} does not let this image pass.", *verdict["reasons"]]
        raise CommandFailed("\n  ".join(lines), client.EXIT_POLICY)


def list_waivers(options: argparse.Namespace, api: Api) -> None:
    rows = api.rows("waivers/", most=options.limit, **({"state": options.state} if options.state else {}))
    print_rows(rows, WAIVER_COLUMNS, options)


def request_waiver(options: argparse.Namespace, api: Api) -> None:
    fields = ("team", "rule", "repository", "environment", "digest", "advisory", "package", "reason", "ticket", "until")
    print_fields(api.post("waivers/", {name: getattr(options, name) for name in fields}), options)


def decide_waiver(options: argparse.Namespace, api: Api) -> None:
    number = names.number_of(options.waiver, "WV-", "a waiver")
    body = {"reason": options.reason} if options.reason else {}
    print_fields(api.post(f"waivers/{number}/{options.decision}/", body), options)


def _file(name: str) -> dict[str, Any]:
    """Return a policy file as {scope, rules, cases}; raises CommandFailed (usage) with what is wrong."""
    try:
        text = sys.stdin.read(FILE_BYTES_MAX + 1) if name == "-" else Path(name).read_text("utf-8")
        if len(text) > FILE_BYTES_MAX:
            raise CommandFailed("The file is larger than 1 MiB.", client.EXIT_USAGE)
        content = yaml_texts.load(text)  # JSON is YAML
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CommandFailed(f"Cannot read {name}: {error}", client.EXIT_USAGE) from None
    if not isinstance(content, dict) or not isinstance(content.get("scope"), str):
        raise CommandFailed("A policy file has scope, rules and cases.", client.EXIT_USAGE)
    foreign = sorted({"environments", "teams", "roles", "grants", "robots", "prefix"} & set(content))
    if foreign:
        raise CommandFailed(
            f"{foreign[0]} belongs to an access file, not to a policy file: gravingdock access.",
            client.EXIT_USAGE,
        )
    rules, cases = content.get("rules") or [], content.get("cases") or []
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules) or not isinstance(cases, list):
        raise CommandFailed("rules is a list of rules, and cases a list of test cases.", client.EXIT_USAGE)
    return {"scope": content["scope"], "rules": rules, "cases": cases}
