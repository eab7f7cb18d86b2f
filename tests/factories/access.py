"""A robot with a token, a group, a provider of sign-in and an identity: one of each, for tests of who sees what."""

from __future__ import annotations

from typing import Any

from accounts import tokens
from accounts.models import Group, GroupMember, Identity, Robot, Role
from lifecycle.sso.models import ClaimRule, IdentityProvider
from tests.factories.people import robot


def make_access(dock: Any) -> Robot:
    """Create them in the team of `dock`, whose owner gets a password, so that the identity can go; return the robot."""
    machine = robot(dock.team)
    tokens.create_token(machine.user, kind="rob", name="ci")
    GroupMember.objects.create(group=Group.objects.create(slug="crew", name="x", team=dock.team), user=dock.owner)
    corp = IdentityProvider.objects.create(slug="corp", name="Corp", issuer="https://localhost:1", client_id="x")
    viewer = Role.objects.get(slug="viewer")
    ClaimRule.objects.create(provider=corp, claim="groups", value="x", role=viewer, team=dock.team)
    Identity.objects.create(user=dock.owner, issuer=corp.issuer, subject="1")
    dock.owner.set_password("a password, so that the identity can go")
    dock.owner.save()
    return machine


def access_ids() -> dict[str, object]:
    """Return the parameters of addresses for what `make_access` created."""
    return {
        "provider": "corp",
        "claim_rule": ClaimRule.objects.values_list("pk", flat=True).first(),
        "identity": Identity.objects.values_list("pk", flat=True).first(),
        "group": Group.objects.values_list("pk", flat=True).first(),
        "group_member": GroupMember.objects.values_list("pk", flat=True).first(),
    }
