"""Roles of machines are for robots only, and a form begins with the weakest role."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import Group
from lifecycle.authority import services
from lifecycle.core.errors import Malformed
from lifecycle.pages.authority.forms import GroupGrantForm, MemberForm, RobotGrantForm
from lifecycle.sso.services import NewRule, rule_of
from tests.clients import browser
from tests.factories.people import robot

pytestmark = pytest.mark.django_db


def test_form_of_a_member_begins_with_viewer_and_has_no_agent(dock: Any) -> None:
    for form in (MemberForm(dock.team), GroupGrantForm(dock.team)):
        names = [name for name, _ in form.fields["role"].choices]  # type: ignore[attr-defined]  # a choice field
        assert names[0] == "viewer"
        assert "agent" not in names
        assert "owner" in names
    page = browser(dock.owner).get("/teams/shop/").content.decode()
    assert 'value="agent"' not in page
    of_robots = [name for name, _ in RobotGrantForm(dock.team).fields["role"].choices]  # type: ignore[attr-defined]  # likewise
    assert "agent" in of_robots


def test_no_person_and_no_group_gets_a_role_of_machines(dock: Any) -> None:
    group = Group.objects.create(slug="devs", name="devs", team=dock.team)
    with pytest.raises(Malformed, match="for robots only"):
        services.add_member(dock.team.pk, actor=dock.owner, username="approver", role="agent")
    with pytest.raises(Malformed, match="for robots only"):
        services.add_group(dock.team.pk, actor=dock.owner, group=str(group), role="agent")
    with pytest.raises(Malformed, match="for robots only"):
        services.ask_for_access("shop", actor=dock.approver, role="agent", reason="why not")
    with pytest.raises(Malformed, match="for robots only"):
        rule_of(None, NewRule("groups", "dev", role="agent", team="shop"))  # type: ignore[arg-type]  # not read before
    made = robot(dock.team, maker=dock.owner)
    assert services.grant_robot(made.pk, actor=dock.owner, role="agent").role.slug == "agent"
