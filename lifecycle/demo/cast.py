"""The teams, role accounts and environments of the demonstration.

They are created once, in one transaction, and reused by later runs. Objects that the demonstration did not create are
never changed: if your installation has an account with the same name, the demonstration stops with an error.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from django.db import transaction
from django.db.models import Q

from accounts.models import ApiToken, Team, User
from accounts.queries import system_user
from accounts.tokens import find_token
from config.embedded.keys import write_private
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import DemoSeeded, UserSecret
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.services import add_member, create_api_token, create_person, create_team
from lifecycle.authority.services.accounts import OPERATOR_MADE
from lifecycle.authority.services.environments import create_environment
from lifecycle.demo.images import PRODUCTS
from lifecycle.demo.telling import DemonstrationFailed
from lifecycle.environments.models import Environment
from lifecycle.rebuild.services import turn_builder_on
from lifecycle.registry.models import Registry
from lifecycle.registry.services import ensure_repository

TEAMS: Final = {"base": "Base images", "shop": "Shop"}
ENVIRONMENTS: Final = {"dev": "Development", "staging": "Staging", "production": "Production"}  # of the shop, in order
READER: Final = "captain"


@dataclass(frozen=True, slots=True)
class Part:
    """One role account."""

    username: str
    about: str
    roles: Mapping[str, str]  # team -> role
    is_admin: bool = False

    @property
    def pushes_to(self) -> list[str]:
        """The repositories of the demonstration that this account can push to."""
        teams = {team for team, role in self.roles.items() if role in {"creator", "maintainer", "owner"}}
        return [product.repository for product in PRODUCTS if product.repository.partition("/")[0] in teams]


PARTS: Final = (
    Part(READER, "You: an admin, and an owner of both teams", {"base": "owner", "shop": "owner"}, is_admin=True),
    Part("base-maintainer", "Pushes the base images and keeps their recipes", {"base": "maintainer"}),
    Part("shop-developer", "Pushes the shop's images, requests promotions", {"base": "viewer", "shop": "maintainer"}),
    Part("shop-approver", "Approves promotions of the shop", {"shop": "approver"}),
    Part("shop-deployer", "Runs approved promotions", {"shop": "deployer"}),
    Part("dock-master", "Watches bases, starts rebuild waves", {"base": "maintainer", "shop": "maintainer"}),
    Part("security", "Reads findings", {"base": "security", "shop": "security"}),
    Part("auditor", "Reads the audit log", {"base": "auditor", "shop": "auditor"}),
)


@dataclass(frozen=True, slots=True)
class Account:
    """A role account with its secrets, as in `demo-accounts.json`."""

    username: str
    password: str
    api_token: str
    registry_token: str


def seed(registry: Registry, accounts_file: Path, *, web: str) -> dict[str, Account]:
    """Create missing teams, accounts, environments and repositories; write the file; return {user name: account}.

    Valid secrets in the file are kept. Raises DemonstrationFailed if a name is already used by another object.
    """
    kept = _load_accounts(accounts_file)
    with transaction.atomic():
        is_new = not AuditEvent.objects.filter(action=Action.DEMO_SEEDED.value).exists()
        if is_new:
            _refuse_taken_names()
        people = {part.username: _person(part, kept.get(part.username, {})) for part in PARTS}
        if is_new:
            _make_teams(registry)
            details = DemoSeeded(accounts=tuple(sorted(people)))
            audit.record(Action.DEMO_SEEDED, actor=system_user(), details=details)
        for team in TEAMS:  # the demonstration builds the images of its own teams, also after somebody turned it off
            turn_builder_on(actor=system_user(), team=team)
        accounts = {name: _account(user, password, kept.get(name, {})) for name, (user, password) in people.items()}
    content = {part.username: _described(part, accounts[part.username], registry, web) for part in PARTS}
    write_private(accounts_file, json.dumps(content, indent=2) + "\n")
    return accounts


def _load_accounts(accounts_file: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(accounts_file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _refuse_taken_names() -> None:
    names = [part.username for part in PARTS]
    taken = [f"account {name}" for name in _existing(User, "username", names)]
    taken += [f"team {name}" for name in _existing(Team, "slug", list(TEAMS))]
    taken += [f"environment prefix {name}" for name in _existing(Environment, "prefix", list(ENVIRONMENTS))]
    if taken:
        raise DemonstrationFailed(
            f"The {taken[0]} already exists, and the demonstration did not create it. "
            "Run the demonstration in a new installation: GRAVINGDOCK_HOME=<an empty folder> make up"
        )


def _existing(model: Any, column: str, names: list[str]) -> list[str]:
    return list(model.objects.filter(Q((f"{column}__in", names))).order_by(column).values_list(column, flat=True))


def _person(part: Part, kept: Mapping[str, Any]) -> tuple[User, str]:
    """Return the user and the password: the stored one if it is still valid, else a new one."""
    system = system_user()
    user = User.objects.filter(username=part.username).first()
    if user is None:
        return create_person(actor=system, username=part.username, is_admin=part.is_admin)
    password = str(kept.get("password", ""))
    if not password or not user.check_password(password):
        password = secrets.token_urlsafe(15)
        user.set_password(password)
        user.save(update_fields=["password"])
        details = UserSecret(tokens_ended=0, user=user.username, secret_kind=OPERATOR_MADE)
        audit.record(Action.USER_PASSWORD_RESET, actor=system, subject=user, details=details)
    return user, password


def _make_teams(registry: Registry) -> None:
    system = system_user()
    teams = {slug: create_team(actor=system, slug=slug, name=name) for slug, name in TEAMS.items()}
    for slug, name in ENVIRONMENTS.items():
        create_environment(teams["shop"], actor=system, slug=slug, name=name, prefix=slug, required_approvals=1)
    for part in PARTS:
        for team, role in part.roles.items():
            add_member(teams[team].pk, actor=system, username=part.username, role=role)
    for product in PRODUCTS:  # a recipe must be older than its image to count as the one used
        ensure_repository(registry, product.repository)


def _account(user: User, password: str, kept: Mapping[str, Any]) -> Account:
    api = _token(user, kept.get("api_token"), "demonstration: API")
    registry = _token(user, (kept.get("registry") or {}).get("password"), "demonstration: registry")
    return Account(user.username, password, api, registry)


def _token(user: User, kept: object, name: str) -> str:
    row = find_token(kept) if isinstance(kept, str) else None
    if isinstance(kept, str) and row is not None and row.user_id == user.pk and row.kind != ApiToken.Kind.REFRESH:
        return kept
    return create_api_token(user, actor=system_user(), name=name)


def _described(part: Part, account: Account, registry: Registry, web: str) -> dict[str, Any]:
    return {
        "username": account.username,
        "password": account.password,
        "about": part.about,
        "roles": dict(part.roles),
        "is_admin": part.is_admin,
        "web": web,
        "api_token": account.api_token,
        "registry": {"server": registry.host, "username": account.username, "password": account.registry_token},
        "repositories": part.pushes_to,
    }
