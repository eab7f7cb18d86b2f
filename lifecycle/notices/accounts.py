"""People are told when somebody changes how they sign in: it may not have been them.

If an admin does it for them, the other admins are told too: the admin could sign in as that person.
"""

from __future__ import annotations

from typing import Final

from django.urls import reverse

from accounts.models import Identity, User
from lifecycle.audit.actions import Action
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.limiter import wrong_codes
from lifecycle.core import clock
from lifecycle.events import AuditRecorded
from lifecycle.notices.telling import by, key_of, name_of, tell
from lifecycle.notices.topics import Topic, register
from lifecycle.notices.types import Telling

SECURITY: Final = register(
    Topic("account.security", "Sign-in changed", "Your password or a second factor of yours was changed or removed.")
)
RESETS: Final = register(
    Topic("account.reset", "Sign-in of a person reset", "An admin reset how another person signs in. For admins.")
)
_GUESSES: Final = 5  # wrong codes in a day that are more than typing errors
_RESET: Final = {
    Action.USER_PASSWORD_RESET: "the password",
    Action.USER_REACTIVATED: "the account and its password",
    Action.SECOND_FACTOR_RESET: "all second factors",
}
_WORDS: Final = {
    Action.SECOND_FACTOR_ADDED: "A second factor was added: {what}.",
    Action.SECOND_FACTOR_REMOVED: "A second factor was removed: {what}.",
    Action.SECOND_FACTOR_CODES_MADE: "New recovery codes were made. The old ones no longer work.",
    Action.SECOND_FACTOR_CODE_USED: "A recovery code was used. {left} are left.",
    Action.SECOND_FACTOR_RESET: "An admin removed all your second factors. All your sessions and tokens ended.",
    Action.USER_PASSWORD_RESET: "An admin reset your password. All your sessions and tokens ended.",
    Action.USER_REACTIVATED: "An admin reactivated your account, with a new password.",
    Action.USER_PASSWORD_CHANGED: "Your password was changed. All other sessions ended.",
    Action.IDENTITY_LINKED: "You can now also sign in with {provider}.",
    Action.USER_LINK_USED: "Your password was set with a link.",
}


def tell_about_account(event: AuditRecorded) -> None:
    """Tell the person of an account about an event of the audit log, if it changes how they sign in."""
    words = next((text for action, text in _WORDS.items() if action == event.action), "")
    if event.action == Action.SECOND_FACTOR_REFUSED and event.subject_id is not None:
        _tell_of_guesses(event.subject_id)
    if not words or event.subject_kind != "user" or event.subject_id is None:
        return
    person = User.objects.get(pk=event.subject_id)
    actor = by(event)
    if event.action in _RESET and actor is not None and actor.kind != User.Kind.SYSTEM:
        _tell_admins(event, person, actor)
    row = AuditEvent.objects.get(pk=event.event_id)
    if event.action == Action.IDENTITY_LINKED and not _has_other_way(person):
        return  # the first sign-in made the account
    name = row.details.get("name", "")
    what = f"passkey {name}" if name else "an authenticator app"
    where = f" From {row.address}." if row.address else ""
    telling = Telling(
        SECURITY,
        key=key_of(event),
        thread=f"user-{person.pk}",
        subject=f"{person}: sign-in changed",
        text=words.format(what=what, left=row.details.get("left", 0), provider=row.details.get("provider", ""))
        + f"{where} If it was not you, end all sessions, change your password and tell an admin.",
        link=reverse("lifecycle:security"),
        person=person,
        actor=name_of(actor) if actor != person else "",
        is_for_channels=False,
    )
    tell(telling, [person.pk])


def _tell_of_guesses(person_id: int) -> None:
    """Tell a person once a day that somebody guesses the codes of their app: that one knows the password already."""
    person = User.objects.get(pk=person_id)
    if wrong_codes(person.username) < _GUESSES:
        return
    telling = Telling(
        SECURITY,
        key=f"guesses-{person.pk}-{clock.now():%Y-%m-%d}",
        thread=f"user-{person.pk}",
        subject=f"{person}: wrong codes",
        text=f"There were {_GUESSES} wrong codes of your authenticator app in the last day. If it was not you, somebody"
        " knows your password: change it. Passkeys and recovery codes still work when codes are refused.",
        link=reverse("lifecycle:security"),
        person=person,
        is_for_channels=False,
    )
    tell(telling, [person.pk])


def _tell_admins(event: AuditRecorded, person: User, actor: User) -> None:
    """Tell all other admins that `actor` could now sign in as `person`."""
    what = next(words for action, words in _RESET.items() if action == event.action)
    others = User.objects.filter(is_superuser=True, is_active=True, kind=User.Kind.PERSON)
    for admin in others.exclude(pk__in=[person.pk, actor.pk]).order_by("pk"):
        telling = Telling(
            RESETS,
            key=f"{key_of(event)}-admin-{admin.pk}",
            thread=f"user-{person.pk}",
            subject=f"{person}: sign-in reset by {actor}",
            text=f"{actor} reset {what} of {person}, and could sign in as {person}. Votes of {person} do not count for"
            " 24 hours. If nobody asked for it, end the sessions of both and deactivate the accounts.",
            link=reverse("lifecycle:person", args=[person.pk]),
            person=admin,
            actor=actor.username,
            is_for_channels=False,
        )
        tell(telling, [admin.pk])


def _has_other_way(person: User) -> bool:
    return person.has_usable_password() or Identity.objects.filter(user=person, ended_at=None).count() > 1
