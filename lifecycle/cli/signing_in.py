"""`gravingdock sign-in`: providers of sign-in from a file, and what their rules do with sample claims (admins)."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lifecycle.cli import client
from lifecycle.cli.client import Api, CommandFailed
from lifecycle.cli.printing import print_rows
from lifecycle.cli.tables import Column

SECRET_VARIABLE: Final = "GRAVINGDOCK_CLIENT_SECRET"  # noqa: S105 -- the name of a variable
COLUMNS: Final[Sequence[Column]] = (
    ("PROVIDER", lambda row: row["slug"]),
    ("NAME", lambda row: row["name"]),
    ("ISSUER", lambda row: row["issuer"]),
    ("ON", lambda row: "yes" if row["is_enabled"] else "no"),
)
RULE_COLUMNS: Final[Sequence[Column]] = (
    ("CLAIM", lambda row: row["rule"]["claim"]),
    ("VALUE", lambda row: row["rule"]["value"]),
    ("GIVES", lambda row: row["rule"]["group"] or f"{row['rule']['role']} in {row['rule']['team']}"),
    ("APPLIES", lambda row: "error" if row["problem"] else "yes" if row["applies"] else "no"),
)
_RULE_FIELDS: Final = ("claim", "match", "value", "group", "role", "team", "repositories", "environment")


def add_to(areas: Any, shared: argparse.ArgumentParser, limited: argparse.ArgumentParser) -> None:
    """Add the area `sign-in` with its commands."""
    area = areas.add_parser("sign-in", help="providers of sign-in (admins)").add_subparsers(
        required=True, metavar="COMMAND"
    )
    area.add_parser("list", parents=[limited], help="list the providers").set_defaults(run=list_providers)
    apply = area.add_parser("apply", parents=[shared], help="make one provider and its rules those of a TOML or JSON"
                            f" file; a secret in ${SECRET_VARIABLE} is set")  # fmt: skip
    apply.add_argument("-f", "--file", required=True, metavar="FILE", help="fields as in the API, and a list of rules")
    apply.set_defaults(run=apply_provider)
    test = area.add_parser("test", parents=[shared], help="read the discovery document of a provider")
    test.add_argument("provider", help="short name of the provider")
    test.set_defaults(run=test_provider)
    preview = area.add_parser("preview", parents=[shared], help="show what the rules do with claims from a JSON file")
    preview.add_argument("provider", help="short name of the provider")
    preview.add_argument("-f", "--file", required=True, metavar="FILE", help="JSON with claims; - reads standard input")
    preview.set_defaults(run=preview_rules)


def list_providers(options: argparse.Namespace, api: Api) -> None:
    print_rows(api.rows("sign-in/providers/", most=options.limit), COLUMNS, options)


def apply_provider(options: argparse.Namespace, api: Api) -> None:
    """Create or change a provider, add the missing rules, and remove those that the file does not have."""
    wanted = _document(options.file)
    rules, slug = wanted.pop("rules", []), wanted.get("slug", "")
    if "client_secret" in wanted:
        raise CommandFailed(f"Put the secret into ${SECRET_VARIABLE}, not into the file.", client.EXIT_USAGE)
    if secret := os.environ.get(SECRET_VARIABLE):
        wanted["client_secret"] = secret
    present = {row["slug"]: row for row in api.rows("sign-in/providers/", most=sys.maxsize)}
    if slug in present:
        if wanted.pop("issuer", present[slug]["issuer"]) != present[slug]["issuer"]:
            raise CommandFailed("The issuer of a provider never changes. Add another provider.")
        wanted.pop("slug")
        api.patch(f"sign-in/providers/{slug}/", wanted)
    else:
        api.post("sign-in/providers/", wanted)
    path = f"sign-in/providers/{slug}/rules/"
    have = {_key(row): row["id"] for row in api.rows(path, most=sys.maxsize)}
    want = {_key(rule): rule for rule in rules}
    for key in want.keys() - have.keys():
        api.post(path, want[key])
    for key in have.keys() - want.keys():
        api.delete(f"{path}{have[key]}/")
    counts = {"added": len(want.keys() - have.keys()), "removed": len(have.keys() - want.keys())}
    print(json.dumps({"provider": slug, **counts}) if options.json else
          f"Provider {slug}: {counts['added']} rules added, {counts['removed']} removed.")  # fmt: skip


def test_provider(options: argparse.Namespace, api: Api) -> None:
    found = api.post(f"sign-in/providers/{options.provider}/test/")
    if not found["is_ok"]:
        raise CommandFailed(found["detail"])
    print(json.dumps(found) if options.json else found["detail"])


def preview_rules(options: argparse.Namespace, api: Api) -> None:
    """Print what each rule does; exit with 3 if the sign-in would be refused."""
    claims = _document(options.file)
    outcomes = api.post(f"sign-in/providers/{options.provider}/preview/", {"claims": claims})["outcomes"]
    print_rows(outcomes, RULE_COLUMNS, options)
    problem = next((row["problem"] for row in outcomes if row["problem"]), "")
    if problem:
        raise CommandFailed(problem, client.EXIT_POLICY)


def _key(rule: dict[str, Any]) -> tuple[str, ...]:
    defaults = {"match": "exact", "repositories": "*"}
    return tuple(str(rule.get(field) or defaults.get(field, "")) for field in _RULE_FIELDS)


def _document(name: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
        document = tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
    except (OSError, ValueError) as error:
        raise CommandFailed(f"Cannot read {name}: {error}", client.EXIT_USAGE) from error
    if not isinstance(document, dict):
        raise CommandFailed(f"{name} is no object.", client.EXIT_USAGE)
    return document
