"""Requests against a small model: after any order of acts, both say the same, and refused acts change nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import Role
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.core.errors import LifecycleError
from lifecycle.environments.models import Environment, Hold, Occupancy, Slot
from lifecycle.promotion import services, threads, verification
from lifecycle.promotion.models import Comment, PromotionRequest

pytestmark = pytest.mark.django_db
VOTERS = ("approver", "second")
LIVE = {"open", "ready"}
ACTS = [
    *((act, who) for act in ("approve", "object", "withdraw_vote") for who in VOTERS for _ in range(3)),
    *((act, who) for act in ("ask", "resolve", "lose_right", "regain_right", "reject") for who in VOTERS),
    *((act, "") for act in ("execute",) * 8 + ("copied",) * 4 + ("works", "broken", "copy_fails", "copy_fails")),
    *((act, "") for act in ("hold", "lift", "lift", "overrule", "withdraw", "expire")),
]


@dataclass
class Model:
    """What the documentation says: docs/explanation/promotion.md."""

    state: str = "open"
    votes: dict[str, str] = field(default_factory=dict)
    overruled: set[str] = field(default_factory=set)
    rights: set[str] = field(default_factory=lambda: set(VOTERS))
    asked: set[str] = field(default_factory=set)  # who has an open blocking thread
    is_held: bool = False
    attempts: int = 0
    is_there: bool = False  # the environment holds the image

    def is_met(self) -> bool:
        counting = {who: value for who, value in self.votes.items() if who in self.rights}
        objects = any(value == "object" and who not in self.overruled for who, value in counting.items())
        return "approve" in counting.values() and not (objects or self.asked or self.is_held)

    def settle(self) -> None:
        if self.state in LIVE:
            self.state = "ready" if self.is_met() else "open"

    def act(self, act: str, who: str) -> bool:
        """Do an act; returns False, and changes nothing, when it must be refused."""
        is_done: bool = getattr(self, f"_{act}")(who)
        if is_done:
            self.settle()
        return is_done

    def _vote(self, who: str, value: str) -> bool:
        same = self.votes.get(who) == value and who not in self.overruled
        if self.state not in LIVE or who not in self.rights or same:
            return False
        self.votes[who] = value
        self.overruled.discard(who)
        return True

    def _approve(self, who: str) -> bool:
        return self._vote(who, "approve")

    def _object(self, who: str) -> bool:
        return self._vote(who, "object")

    def _withdraw_vote(self, who: str) -> bool:
        if self.state not in LIVE or who not in self.rights or who not in self.votes:
            return False
        del self.votes[who]
        self.overruled.discard(who)
        return True

    def _reject(self, who: str) -> bool:
        return who in self.rights and self._end("rejected")

    def _withdraw(self, _: str) -> bool:
        return self._end("withdrawn")

    def _expire(self, _: str) -> bool:
        return self._end("expired")

    def _end(self, state: str) -> bool:
        if self.state not in LIVE:
            return False
        self.state = state
        return True

    def _overrule(self, _: str) -> bool:
        standing = self.votes.get("second") == "object" and "second" not in self.overruled
        if self.state not in LIVE or not standing:
            return False
        self.overruled.add("second")
        return True

    def _ask(self, who: str) -> bool:
        if self.state not in LIVE or who not in self.rights or who in self.asked:
            return False
        self.asked.add(who)
        return True

    def _resolve(self, who: str) -> bool:
        if who not in self.rights or who not in self.asked:
            return False
        self.asked.discard(who)
        return True

    def _lose_right(self, who: str) -> bool:
        self.rights.discard(who)
        return True

    def _regain_right(self, who: str) -> bool:
        self.rights.add(who)
        return True

    def _hold(self, _: str) -> bool:
        self.is_held = True
        return True

    def _lift(self, _: str) -> bool:
        self.is_held = False
        return True

    def _execute(self, _: str) -> bool:
        if self.state != "ready":
            return False
        self.state, self.attempts = "executing", self.attempts + 1
        return True

    def _copied(self, _: str) -> bool:
        if self.state != "executing":
            return False
        self.state, self.is_there = "verifying", True
        return True

    def _copy_fails(self, _: str) -> bool:
        if self.state != "executing":
            return False
        self.state = "ready" if self.attempts < services.EXECUTIONS_MAX else "failed"
        return True

    def _works(self, _: str) -> bool:
        return self._verified("succeeded")

    def _broken(self, _: str) -> bool:
        return self._verified("failed")

    def _verified(self, state: str) -> bool:
        if self.state != "verifying":
            return False
        self.state = state
        return True


class Real:
    """The same acts by the services. `act` returns whether the act was done."""

    def __init__(self, dock, request):
        self.dock, self.request = dock, request

    def act(self, act, who):
        person = getattr(self.dock, who, None)
        try:
            with transaction.atomic():
                is_done = getattr(self, f"_{act}")(person)
        except LifecycleError:
            is_done = False
        self.request.refresh_from_db()
        if is_done and act in OUTSIDE and self.request.state in LIVE:
            services.reevaluate(self.request)
            self.request.refresh_from_db()
        return is_done

    def _approve(self, person):
        services.approve(self.request.pk, actor=person)
        return True

    def _object(self, person):
        services.object_to(self.request.pk, actor=person, reason="no")
        return True

    def _withdraw_vote(self, person):
        services.withdraw_vote(self.request.pk, actor=person)
        return True

    def _reject(self, person):
        services.reject(self.request.pk, actor=person, reason="no")
        return True

    def _withdraw(self, _):
        services.withdraw(self.request.pk, actor=self.dock.requester)
        return True

    def _expire(self, _):
        was_live = self.request.state in LIVE
        past = timezone.now() - timedelta(seconds=1)
        rows = PromotionRequest.objects.filter(pk=self.request.pk)
        if was_live:
            rows.update(**{"approve_by" if self.request.state == "open" else "execute_by": past})
        services.expire_due()
        return was_live

    def _overrule(self, _):
        services.overrule(self.request.pk, "second", actor=self.dock.owner, reason="known")
        return True

    def _ask(self, person):
        if Comment.objects.filter(author=person, resolved_at=None).exists():
            return False
        threads.comment(self.request.pk, actor=person, text="Why?", is_blocking=True)
        return True

    def _resolve(self, person):
        thread = Comment.objects.filter(author=person, resolved_at=None).first()
        if thread is None:
            return False
        threads.resolve(self.request.pk, thread.pk, actor=person)
        return True

    def _lose_right(self, person):
        RoleGrant.objects.filter(user=person).delete()
        return True

    def _regain_right(self, person):
        RoleGrant.objects.get_or_create(user=person, team=self.dock.team, role=Role.objects.get(slug="approver"))
        return True

    def _hold(self, _):
        Hold.objects.get_or_create(team=self.dock.team, reason="x", owner=self.dock.owner)
        return True

    def _lift(self, _):
        Hold.objects.all().delete()
        return True

    def _execute(self, _):
        services.execute(self.request.pk, actor=self.dock.deployer)
        return True

    def _copied(self, _):
        if self.request.state != "executing":
            return False
        services.verify(self.request)
        services.succeed(self.request)
        return True

    def _copy_fails(self, _):
        if self.request.state != "executing":
            return False
        services.fail(self.request, why="No answer.", is_technical=True)
        return True

    def _works(self, _):
        verification.confirm(self.request.pk, actor=self.dock.deployer, is_good=True, comment="works")
        return True

    def _broken(self, _):
        verification.confirm(self.request.pk, actor=self.dock.deployer, is_good=False, comment="down")
        return True


OUTSIDE = {"lose_right", "regain_right", "hold", "lift", "copy_fails"}  # what the next evaluation finds
STEPS: list[int] = []


@settings(
    max_examples=80, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(acts=st.lists(st.sampled_from(ACTS), min_size=26, max_size=32))
def check_acts(dock, request_, acts):
    with transaction.atomic():
        model, real = Model(), Real(dock, PromotionRequest.objects.get(pk=request_.pk))
        for number, (act, who) in enumerate(acts):
            before = AuditEvent.objects.count()
            expected = model.act(act, who)
            trail = acts[: number + 1]
            assert real.act(act, who) == expected, trail
            assert real.request.state == model.state, trail
            if not expected:
                assert AuditEvent.objects.count() == before, trail
        STEPS.append(len(acts))
        slot = Slot.objects.filter(environment=dock.staging, image=dock.image)
        assert slot.exists() == model.is_there
        assert Occupancy.objects.filter(ended_at=None).count() == int(model.is_there)
        ended = AuditEvent.objects.filter(action__in=("promotion.succeeded", "promotion.failed")).count()
        assert ended == int(model.state in {"succeeded", "failed"})
        transaction.set_rollback(True)


@pytest.mark.timeout(900)
def test_services_and_model_agree_over_two_thousand_steps(dock, request_):
    Environment.objects.filter(pk=dock.staging.pk).update(verification="manual")
    STEPS.clear()
    check_acts(dock, request_)
    assert sum(STEPS) >= 2000
