"""People are told when somebody changes how they sign in: it may not have been them."""

from __future__ import annotations

from typing import Final

from django.urls import reverse

from accounts.models import Identity, User
from lifecycle.audit.actions import Action
from lifecycle.audit.models import AuditEvent
from lifecycle.events import AuditRecorded
from lifecycle.notices.telling import by, key_of, name_of, tell
from lifecycle.notices.topics import Topic, register
from lifecycle.notices.types import Telling

SECURITY: Final = register(
    Topic("account.security", "Sign-in changed", "Your password or a second factor of yours was changed or removed.")
)
_WORDS: Final = {
    Action.SECOND_FACTOR_ADDED: "A second factor was added: {what}.",
    Action.SECOND_FACTOR_REMOVED: "A second factor was removed: {what}.",
    Action.SECOND_FACTOR_CODES_MADE: "New recovery codes were made. The old ones no longer work.",
    Action.SECOND_FACTOR_CODE_USED: "A recovery code was used. {left} are left.",
    Action.SECOND_FACTOR_RESET: "An admin removed all your second factors. All your sessions ended.",
    Action.USER_PASSWORD_CHANGED: "Your password was changed. All other sessions ended.",
    Action.IDENTITY_LINKED: "You can now also sign in with {provider}.",
    Action.USER_LINK_USED: "Your password was set with a link.",
}


def tell_about_account(event: AuditRecorded) -> None:
    """Tell the person of an account about an event of the audit log, if it changes how they sign in."""
    words = next((text for action, text in _WORDS.items() if action == event.action), "")
    if not words or event.subject_kind != "user" or event.subject_id is None:
        return
    person = User.objects.get(pk=event.subject_id)
    row = AuditEvent.objects.get(pk=event.event_id)
    if event.action == Action.IDENTITY_LINKED and not _has_other_way(person):
        return  # the first sign-in made the account
    name = row.details.get("name", "")
    what = f"passkey {name}" if name else "an authenticator app"
    where = f" From {row.address}." if row.address else ""
    actor = by(event)
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


def _has_other_way(person: User) -> bool:
    return person.has_usable_password() or Identity.objects.filter(user=person).count() > 1
