"""Whether two accounts may belong to one person, so that a vote of one on a request of the other does not count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Lower

from accounts.models import ApiToken, Identity, Robot, User
from lifecycle.core import context
from lifecycle.core.context import once_a_read


def counted_voters(people: QuerySet[User], requester_ids: Collection[int]) -> QuerySet[User]:
    """Return the people whose votes count on a request of `requester_ids`, by the rule of `why_not_counted`."""
    return people.filter(secret_seen_by=None).exclude(pk__in=_sharing_with(requester_ids).values("pk"))


def why_not_counted(voter: User, requester_ids: Collection[int]) -> str:
    """Return why a vote of `voter` does not count on a request of `requester_ids`, as one sentence; "" if it counts."""
    key = ("not counted", voter.pk, frozenset(requester_ids))  # asked for each member of a release set
    return once_a_read(key, lambda: reasons_not_counted([voter], requester_ids).get(voter.pk, ""))


def reasons_not_counted(voters: Collection[User], requester_ids: Collection[int]) -> dict[int, str]:
    """Return {voter id: sentence} of the voters whose votes do not count, in one query if `secret_seen_by` is loaded.

    Another user who has seen the password may be the voter. An account that shares a verified mail or a sign-in
    identity with the requester belongs to the requester. Passwords from commands and the demonstration are exempt.
    """
    if not voters:
        return {}
    ids = [voter.pk for voter in voters]
    sharing = set(_sharing_with(requester_ids).filter(pk__in=ids).values_list("pk", flat=True))
    reasons = {}
    for voter in voters:
        if voter.secret_seen_by is not None:
            reasons[voter.pk] = (
                f"{voter.secret_seen_by} has seen the password of {voter}. {voter} must change it first."
            )
        elif voter.pk in sharing:
            reasons[voter.pk] = (
                f"{voter} and the requester share a verified mail or a sign-in identity, so they count as one person."
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


def same_person(user: User) -> QuerySet[User]:
    """Return the accounts that share a verified mail or an identity with `user`, and so count as one person."""
    return _sharing_with([user.pk])


def one_account_each(people: Collection[User]) -> dict[int, User]:
    """Return {user id: the first of `people` who counts as the same person}, by the rule of `same_person`.

    One query for any number of people, also for a single one, so that a page costs the same.
    """
    first = {person.pk: person for person in people}
    marks: defaultdict[int, set[tuple[str, ...]]] = defaultdict(set)
    for person in people:
        if person.email and person.email_verified_at is not None:
            marks[person.pk].add((person.email.lower(),))
    identities = Identity.objects.filter(user__in=first).values_list("user", "issuer", "subject", "verified_mail")
    for user, issuer, subject, mail in identities:
        marks[user].add((issuer, subject))
        if mail:
            marks[user].add((mail.lower(),))
    owner: dict[tuple[str, ...], User] = {}
    for person in people:
        found = next((owner[mark] for mark in sorted(marks[person.pk]) if mark in owner), person)
        first[person.pk] = found
        for mark in marks[person.pk]:
            owner.setdefault(mark, found)
    return first


def why_token_not_counted() -> str:
    """Return why a vote with the token of this request does not count, as one sentence; "" if it counts or is absent.

    Tokens from commands and the demonstration are exempt.
    """
    lookup = context.current().token_lookup
    token = ApiToken.objects.select_related("made_by").filter(lookup=lookup).first() if lookup else None
    maker = token.made_by if token is not None else None
    if token is None or maker is None or maker.pk == token.user_id or maker.kind == User.Kind.SYSTEM:
        return ""
    return f"{maker} created this token and has seen it. Vote with a token that only you have seen."


def _sharing_with(user_ids: Collection[int]) -> QuerySet[User]:
    """Return the accounts that share a verified mail or a sign-in identity with one of `user_ids`.

    A mail counts in any case, if an admin confirmed it or the provider of a sign-in did. An identity counts also after
    it was unlinked: whoever had it is one person. Accounts of `user_ids` with neither are not in the result.
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
