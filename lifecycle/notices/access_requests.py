"""Who is told about access requests: the owners who can decide, and the person who asked."""

from __future__ import annotations

from typing import Final

from django.urls import reverse

from accounts.verbs import Verb
from lifecycle.audit.actions import Action
from lifecycle.authority.models import AccessRequest
from lifecycle.authority.queries import people_who
from lifecycle.events import AuditRecorded
from lifecycle.notices.telling import because, by, key_of, name_of, settle, tell
from lifecycle.notices.topics import Topic, register
from lifecycle.notices.types import Telling

ASKED: Final = register(
    Topic("access.asked", "Access asked", "Somebody asks for a role in your team, and you can grant it.")
)
DECIDED: Final = register(
    Topic("access.decided", "Access decided", "Your request for a role was granted or declined. You see the team.")
)


def tell_about_access(event: AuditRecorded) -> None:
    """Tell people about an event of the audit log, if it is one about an access request."""
    if event.subject_kind != "accessrequest" or event.subject_id is None:
        return
    rows = AccessRequest.objects.select_related("team", "requester", "role", "environment")
    row = rows.filter(pk=event.subject_id).first()
    if row is None:
        return
    thread, actor = f"access-{row.pk}", by(event)
    if event.action == Action.ACCESS_REQUESTED:
        topic, people = (
            ASKED,
            set(people_who(Verb.TEAM_MANAGE, team=row.team, family=None).values_list("pk", flat=True)),
        )
        text = f"{row.requester} asks for the role {row.role} for {row.days} days: {row.reason}"
    else:
        settle(thread, (ASKED,))
        if event.action == Action.ACCESS_WITHDRAWN:
            return
        topic, people = DECIDED, {row.requester_id}
        text = f"{actor} {row.state} it.{because(event)}"
    what = Telling(
        topic,
        key=key_of(event),
        thread=thread,
        subject=f"{row}: role {row.role} for {row.requester} in {row.scope_words}",
        text=text,
        link=reverse("lifecycle:access-request", args=[row.pk]),
        team=row.team,
        actor=name_of(actor),
        facts={"request": str(row.pk), "state": row.state, "user": row.requester.username, "role": row.role.slug},
        is_for_channels=topic is ASKED,
    )
    tell(what, people - ({actor.pk} if actor is not None else set()))
