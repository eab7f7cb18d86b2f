"""Whether two accounts may belong to one person, so that a vote of one on a request of the other does not count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any, Final

from django.db.models import CharField, Exists, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Cast, Lower

from accounts.models import ApiToken, Identity, Robot, User
from lifecycle.authority import resets
from lifecycle.core import clock, context
from lifecycle.core.context import once_a_read

FORMER_MAIL: Final = "former mail"  # in place of the issuer of an identity; no address, so no provider has it
_RESET: Final = "reset by an admin"  # in place of the issuer of an identity


def counted_voters(people: QuerySet[User], requester_ids: Collection[int], *, or_later: bool = False) -> QuerySet[User]:
    """Return the people whose votes count on a request of `requester_ids`, by the rule of `why_not_counted`.

    `or_later`: also those whose votes count again by themselves, a while after an admin reset how they sign in.
    """
    counted = people.filter(secret_seen_by=None).exclude(pk__in=_sharing_with(requester_ids).values("pk"))
    return counted if or_later else counted.exclude(is_reset("pk"))


def is_reset(user: str) -> Exists:
    """Return the condition that an admin reset how a person signs in a while ago, so that they decide nothing yet.

    `user` is the field of the outer query that has the id of the person.
    """
    return Exists(resets.cooling().order_by().filter(user=OuterRef(user)))


def why_not_counted(voter: User, requester_ids: Collection[int]) -> str:
    """Return why a vote of `voter` does not count on a request of `requester_ids`, as one sentence; "" if it counts."""
    key = ("not counted", voter.pk, frozenset(requester_ids))  # asked for each member of a release set
    return once_a_read(key, lambda: reasons_not_counted([voter], requester_ids).get(voter.pk, ""))


def reasons_not_counted(voters: Collection[User], requester_ids: Collection[int]) -> dict[int, str]:
    """Return {voter id: sentence} of the voters whose votes do not count, in one query if `secret_seen_by` is loaded.

    Another user who has seen the password, or reset how the person signs in, may be the voter. An account that shares a
    verified mail or a sign-in identity with the requester belongs to the requester. Passwords and resets from commands
    and the demonstration are exempt.
    """
    if not voters:
        return {}
    last = resets.cooling().filter(user=OuterRef("pk"))
    rows = User.objects.filter(pk__in=[voter.pk for voter in voters]).annotate(
        is_same=Exists(_marked_like(requester_ids).filter(pk=OuterRef("pk"))),
        is_reset_with=Exists(resets.reset_with(requester_ids).filter(pk=OuterRef("pk"))),
        reset_by=Subquery(last.values("made_by__username")[:1]),
        reset_at=Subquery(last.values("at")[:1]),
    )
    found = {row[0]: row[1:] for row in rows.values_list("pk", "is_same", "is_reset_with", "reset_by", "reset_at")}
    reasons = {}
    for voter in voters:
        is_same, is_reset_with, reset_by, reset_at = found[voter.pk]
        if voter.secret_seen_by is not None:
            reasons[voter.pk] = (
                f"{voter.secret_seen_by} has seen the password of {voter}. {voter} must change it first."
            )
        elif reset_by is not None:
            reasons[voter.pk] = resets.words_of(voter.username, reset_by, reset_at)
        elif is_same:
            reasons[voter.pk] = (
                f"{voter} and the requester share a verified mail or a sign-in identity, so they count as one person."
            )
        elif is_reset_with:
            reasons[voter.pk] = (
                f"{voter} and the requester count as one person: one reset how the other signs in, less than"
                f" {resets.ONE_PERSON_FOR.days} days ago."
            )
    return reasons


def why_not_second(person: User, author_ids: Collection[int]) -> str:
    """Return why `person` is no second person for what these users asked for, as one sentence; "" if they are.

    Beyond `why_not_counted`: who can act as a robot cannot approve what the robot asked for.
    """
    makers = makers_of(author_ids)
    if any(person.pk in found for found in makers.values()):
        return f"{person} can act as the robot that asked for it. Someone else has to decide."
    return why_not_counted(person, {*author_ids}.union(*makers.values()))


def makers_of(user_ids: Collection[int]) -> Mapping[int, set[int]]:
    """Return {user id: everybody who can act as this user}, which is empty unless the user is a robot."""
    return once_a_read(("makers", frozenset(user_ids)), lambda: _makers_of(user_ids))


def _makers_of(user_ids: Collection[int]) -> Mapping[int, set[int]]:
    makers: defaultdict[int, set[int]] = defaultdict(set)
    # Rules of keyless exchange count also after they ended: the tokens that they gave are deleted soon.
    names = ("user", "created_by", "responsible", "trust_rules__made_by")
    for robot, *people in Robot.objects.filter(user__in=user_ids).values_list(*names):
        makers[robot].update(pk for pk in people if pk is not None)
    for robot, maker in robot_tokens().filter(user__in=user_ids).values_list("user", "made_by"):
        makers[robot].update({maker} - {None})
    return makers


def robot_tokens() -> QuerySet[ApiToken]:
    """Return the tokens of robots."""
    return ApiToken.objects.filter(kind=ApiToken.Kind.ROBOT)


def keep_mail(user: User, mail: str) -> None:
    """Keep a verified mail that an account had, as an identity that ended: the account stays the same person."""
    Identity.objects.get_or_create(
        user=user, issuer=FORMER_MAIL, subject=mail.lower()[:255],
        defaults={"verified_mail": mail.lower()[:254], "ended_at": clock.now()},
    )  # fmt: skip


def accounts_with_mail(mails: Collection[str]) -> dict[str, set[int]]:
    """Return {mail in lower case: ids of the accounts that have or had it, verified}, with one query."""
    known = User.objects.filter(email_verified_at__isnull=False).annotate(mail=Lower("email")).filter(mail__in=mails)
    proven = Identity.objects.filter(verified_mail__in=mails).values_list("verified_mail", "user")
    accounts: defaultdict[str, set[int]] = defaultdict(set)
    for mail, user in known.values_list("mail", "pk").union(proven, all=True):
        accounts[mail].add(user)
    return accounts


def names_of(user: User) -> set[str]:
    """Return the user names and mails by which a person can be known elsewhere, of all their accounts."""
    return once_a_read(("names", user.pk), lambda: _names_of(user))


def _names_of(user: User) -> set[str]:
    ids = {user.pk, *same_person(user).values_list("pk", flat=True)}
    names = {user.username, user.email}
    for username, mail in User.objects.filter(pk__in=ids).values_list("username", "email"):
        names.update((username, mail))
    names.update(Identity.objects.filter(user__in=ids).values_list("verified_mail", flat=True))
    return names - {""}


def same_person(user: User) -> QuerySet[User]:
    """Return the accounts that count as one person with `user`: by a mail, an identity, or a reset by an admin."""
    return _sharing_with([user.pk])


def one_account_each(people: Collection[User]) -> dict[int, User]:
    """Return {user id: the first of `people` who counts as the same person}, by the rule of `same_person`.

    One query for any number of people, also for a single one, so that a page costs the same.
    """
    first = {person.pk: person for person in people}
    marks: defaultdict[int, set[tuple[str, ...]]] = defaultdict(set)
    reset: set[int] = set()
    for person in people:
        if person.email and person.email_verified_at is not None:
            marks[person.pk].add((person.email.lower(),))
    identities = Identity.objects.filter(user__in=first).values_list("user", "issuer", "subject", "verified_mail")
    for user, issuer, subject, mail in identities.union(*_marks_of_resets(first), all=True):
        marks[user].add((issuer, subject))
        if issuer == _RESET and mail:
            reset.add(user)
        elif mail:
            marks[user].add((mail.lower(),))
    owner: dict[tuple[str, ...], User] = {}
    # Whom two admins reset is one of them, and must not make one of both: so those who were reset come last.
    for person in sorted(people, key=lambda person: person.pk in reset):
        found = next((owner[mark] for mark in sorted(marks[person.pk]) if mark in owner), person)
        first[person.pk] = found
        for mark in marks[person.pk]:
            owner.setdefault(mark, found)
    return first


def _marks_of_resets(user_ids: Collection[int]) -> list[QuerySet[Any, Any]]:
    """Return what marks an account as that of whoever reset it, as rows like those of `Identity`.

    The last column is "whose" in the row of the account that was reset.
    """
    rows = resets.standing()
    reset, number = Value(_RESET, CharField()), Cast("pk", CharField())
    return [
        rows.filter(made_by__in=user_ids).values_list("made_by", reset, number, Value("", CharField())),
        rows.filter(user__in=user_ids).values_list("user", reset, number, Value("whose", CharField())),
    ]


def why_token_not_counted() -> str:
    """Return why a vote with the token of this request does not count, as one sentence; "" if it counts or is absent.

    Tokens from commands and the demonstration are exempt.
    """
    lookup = context.current().token_lookup
    return once_a_read(("token not counted", lookup), lambda: _why_token_not_counted(lookup)) if lookup else ""


def _why_token_not_counted(lookup: str) -> str:
    token = ApiToken.objects.select_related("made_by").filter(lookup=lookup).first()
    maker = token.made_by if token is not None else None
    if token is None or maker is None or maker.pk == token.user_id or maker.kind == User.Kind.SYSTEM:
        return ""
    return f"{maker} created this token and has seen it. Vote with a token that only you have seen."


def _sharing_with(user_ids: Collection[int]) -> QuerySet[User]:
    """Return the accounts that count as one person with one of `user_ids`."""
    alike, reset = _marked_like(user_ids), resets.reset_with(user_ids)
    return User.objects.filter(Q(pk__in=alike.values("pk")) | Q(pk__in=reset.values("pk")))


def _marked_like(user_ids: Collection[int]) -> QuerySet[User]:
    """Return the accounts that share a verified mail or a sign-in identity with one of `user_ids`.

    A mail counts in any case, if an admin confirmed it or the provider of a sign-in did. It counts also after the
    account has another one, and an identity after it was unlinked: whoever had it is one person. Accounts of `user_ids`
    with neither are not in the result.
    """
    ids = list(user_ids)
    verified = User.objects.filter(email_verified_at__isnull=False).exclude(Q(email=""))
    confirmed = verified.filter(pk__in=ids).values_list(Lower("email"))
    proven = Identity.objects.filter(user__in=ids).exclude(verified_mail="").values("verified_mail")
    own = Identity.objects.filter(user__in=ids, issuer=OuterRef("issuer"), subject=OuterRef("subject"))
    at_providers = Identity.objects.filter(
        Exists(own) | Q(verified_mail__in=proven) | Q(verified_mail__in=confirmed)
    ).exclude(Q(verified_mail="") & ~Exists(own))
    in_accounts = verified.annotate(mail=Lower("email")).filter(Q(mail__in=confirmed) | Q(mail__in=proven))
    return User.objects.filter(Q(pk__in=in_accounts.values("pk")) | Q(pk__in=at_providers.values("user")))
