"""What people do about a remedy, for one team: assign, snooze, comment. One transaction each, with an audit event."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.urls import reverse

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import FixDetails
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.queries import people_who, repositories_visible_to, teams_visible_to
from lifecycle.core import clock
from lifecycle.core.errors import Malformed
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.notices.telling import name_of, tell
from lifecycle.notices.topics import Topic, register
from lifecycle.notices.types import Telling
from lifecycle.registry.models import Repository
from lifecycle.remedies.access import Share, share_for, why_not_manage
from lifecycle.remedies.models import FixComment, Remedy, TeamFix
from lifecycle.remedies.queries import Work

SNOOZE_DAYS_MAX: Final = 365
REASON_MAX: Final = 2000  # characters
TEXT_MAX: Final = 4000  # characters of a comment
COMMENTS_MAX: Final = 200  # on one remedy, of one team
ASSIGNED: Final = register(Topic("fix.assigned", "Fix assigned", "Somebody assigned a fix to you or to your team."))


def why_not_assign(actor: User, share: Share) -> Reason | None:
    """Return why `actor` cannot say who works on a remedy."""
    return why_not_manage(actor, share)


def why_not_snooze(actor: User, share: Share) -> Reason | None:
    """Return why `actor` cannot put a remedy off, or end that."""
    return why_not_manage(actor, share)


@transaction.atomic
def assign(key: str, *, actor: User, team: str = "", person: str = "", to_team: str = "") -> Work:
    """Say who works on a remedy for a team: a person, a team, or nobody. Who gets it is told.

    Raises NotFound, NotPermitted, Malformed.
    """
    share = share_for(actor, key, team)
    refuse_if(why_not_assign(actor, share))
    if person and to_team:
        raise Malformed("Name a person or a team, not both.", field="person")
    who = _person(share, person) if person else None
    whole = teams_visible_to(actor).filter(slug=to_team).first() if to_team else None
    if to_team and whole is None:
        raise Malformed("No team that you can see has this slug.", field="to_team")
    row = _locked(share)
    is_same = (row.person_id, row.to_team_id) == (who.pk if who else None, whole.pk if whole else None)
    row.person, row.to_team = who, whole
    row.save(update_fields=["person", "to_team", "changed_at"])
    if not is_same:
        if who is None and whole is None:
            _record(Action.FIX_UNASSIGNED, share, row, actor)
        else:
            event = _record(Action.FIX_ASSIGNED, share, row, actor)
            _tell(share, row, actor, key, f"fix-{row.pk}-{event.at.isoformat()}")
    return _work(row, share)


@transaction.atomic
def snooze(
    key: str, *, actor: User, team: str = "", until: datetime | None = None, until_fix: bool = False, reason: str = ""
) -> Work:
    """Put a remedy off for a team: until a time at most a year ahead, until a fix ships, or what comes first.

    It comes back before that when something in it becomes known to be exploited. Raises NotFound, NotPermitted,
    Malformed.
    """
    share = share_for(actor, key, team)
    refuse_if(why_not_snooze(actor, share))
    now = clock.now()
    if until is None and not until_fix:
        raise Malformed("Choose until when: a time, or until a fix ships.", field="until")
    if until is not None and not now < until <= now + timedelta(days=SNOOZE_DAYS_MAX):
        raise Malformed(f"Choose a time in the next {SNOOZE_DAYS_MAX} days.", field="until")
    if until_fix and share.has_fix:
        raise Malformed("There is a fix already. Snooze it until a time.", field="until_fix")
    row = _locked(share)
    row.snoozed_until, row.until_fix, row.snoozed_by = until, until_fix, actor
    row.was_exploited = share.is_exploited
    row.reason = _checked(reason, REASON_MAX, "reason", is_required=False)
    row.save(update_fields=["snoozed_until", "until_fix", "snoozed_by", "was_exploited", "reason", "changed_at"])
    _record(Action.FIX_SNOOZED, share, row, actor)
    return _work(row, share)


@transaction.atomic
def wake(key: str, *, actor: User, team: str = "") -> Work:
    """End the snooze of a remedy for a team. Raises NotFound, NotPermitted."""
    share = share_for(actor, key, team)
    refuse_if(why_not_snooze(actor, share))
    row = _locked(share)
    if row.snoozed_until is None and not row.until_fix:
        return _work(row, share)
    row.snoozed_until, row.until_fix, row.snoozed_by, row.reason = None, False, None, ""
    row.save(update_fields=["snoozed_until", "until_fix", "snoozed_by", "reason", "changed_at"])
    _record(Action.FIX_WOKEN, share, row, actor)
    return _work(row, share)


@transaction.atomic
def comment(key: str, *, actor: User, text: str, team: str = "") -> FixComment:
    """Write about a remedy that `actor` can see in a team. Raises NotFound, Malformed."""
    share = share_for(actor, key, team)
    text = _checked(text, TEXT_MAX, "text")
    row = _locked(share)
    if row.comments.count() >= COMMENTS_MAX:
        raise Malformed(f"It has {COMMENTS_MAX} comments already. Go on elsewhere, and link to it.", field="text")
    written = FixComment.objects.create(fix=row, author=actor, text=text)
    _record(Action.FIX_COMMENTED, share, row, actor)
    return written


def _locked(share: Share) -> TeamFix:
    """Return what the team does about the remedy, locked; nothing yet is a new row."""
    TeamFix.objects.get_or_create(team=share.team, subject=share.remedy.subject)
    rows = TeamFix.objects.select_for_update(of=("self",)).select_related("person", "to_team", "snoozed_by", "team")
    return rows.get(team=share.team, subject=share.remedy.subject)


def _work(row: TeamFix, share: Share) -> Work:
    """Return what the team does now, as lists show it."""
    is_timed = row.snoozed_until is not None and row.snoozed_until > clock.now()
    is_snoozed = is_timed or (row.until_fix and row.snoozed_until is None)
    is_snoozed = is_snoozed and not (row.until_fix and share.has_fix)
    return Work(
        row.pk,
        share.team.slug,
        row.person.username if row.person is not None else "",
        row.to_team.slug if row.to_team is not None else "",
        is_snoozed and (row.was_exploited or not share.is_exploited),
        row.snoozed_until,
        row.until_fix,
        row.snoozed_by.username if row.snoozed_by is not None else "",
        row.reason,
    )


def _person(share: Share, name: str) -> User:
    """Return an active person who can see an image of the remedy. Who cannot is told apart from nobody by no word."""
    found = User.objects.filter(username=name, is_active=True, kind=User.Kind.PERSON).first()
    if found is None or _seen_by(found, share) is None:
        raise Malformed("No person with this name can see the images of this fix.", field="person")
    return found


def _seen_by(person: User, share: Share) -> Repository | None:
    return repositories_visible_to(person).filter(pk__in=share.repository_ids).order_by("pk").first()


def _checked(text: str, most: int, field: str, *, is_required: bool = True) -> str:
    text = text.strip()
    if (is_required and not text) or len(text) > most or "\0" in text:
        raise Malformed(f"Write 1 to {most:,} characters.", field=field)
    return text


def _name(remedy: Remedy) -> str:
    """Return what a remedy is about in a notice. A base is not named: the reader may not see it."""
    return remedy.package_name or ("rebuild on a newer base" if remedy.kind == Remedy.Kind.REBUILD else "promote")


def _tell(share: Share, row: TeamFix, actor: User, key: str, notice: str) -> None:
    """Tell the person, or those of the team who answer for images, about an assignment."""
    if row.person is not None:
        people = {row.person.pk}
        where = _seen_by(row.person, share)
    elif row.to_team is not None:
        people = set(people_who(Verb.RUNTIME_MANAGE, team=row.to_team, family=None).values_list("pk", flat=True))
        where = Repository.objects.filter(pk__in=share.repository_ids).order_by("pk").first()
    else:
        return
    if where is None or not people - {actor.pk}:
        return
    who = "you" if row.person is not None else f"team {row.to_team}"
    tell(
        Telling(
            ASSIGNED,
            key=notice,
            thread=f"fix-{row.pk}",
            subject=f"Fix for {share.team.slug}: {_name(share.remedy)}",
            text=f"{actor.username} assigned this fix to {who}.",
            link=reverse("lifecycle:fix", args=[key]),
            repository=where,
            actor=name_of(actor),
            facts={"fix": key, "team": share.team.slug},
            is_for_channels=False,
        ),
        people - {actor.pk},
    )


def _record(action: Action, share: Share, row: TeamFix, actor: User) -> AuditEvent:
    remedy = share.remedy
    details = FixDetails(
        remedy=remedy.key,
        kind=remedy.kind,
        package=remedy.package_name,
        person=row.person.username if row.person is not None else "",
        to_team=row.to_team.slug if row.to_team is not None else "",
        until=row.snoozed_until.isoformat() if row.snoozed_until is not None else "",
        until_fix=row.until_fix,
    )
    reason = row.reason if action == Action.FIX_SNOOZED else ""
    return audit.record(action, actor=actor, subject=row, team=share.team, reason=reason, details=details)
