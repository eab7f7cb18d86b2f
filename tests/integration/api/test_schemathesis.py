"""Generated requests to every operation, by the OpenAPI document, as the owner of one of two teams.

schemathesis makes valid and invalid requests, the same ones in each run, and calls the application in this process.
Each request is rolled back. No response contains anything of the other team.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
import schemathesis
import werkzeug.test
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, transaction
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    ignored_auth,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from accounts import tokens
from accounts.models import ApiToken, Robot, Role, Team, User
from config.wsgi import application
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.services import create_environment, create_robot
from lifecycle.core import clock
from lifecycle.environments.models import Hold, PromotionWindow, Slot
from lifecycle.jobs.models import Job, JobLogLine
from lifecycle.notices.models import Channel, InboxItem, Message, Notice
from lifecycle.policies.models import ExternalCheck
from lifecycle.promotion import services as promotions
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe, UpstreamWatch
from tests import sharing
from tests.factories import dock as rows
from tests.fakes.registry import InMemoryRegistry, answer_with

pytestmark = pytest.mark.django_db

EXAMPLES: Final = 8  # requests per operation and run
SECRET: Final = "rivalsecret"  # in every text of the other team, and in no request
CHECKS: Final = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance, negative_data_rejection, ignored_auth, unsupported_method, missing_required_header,
    allow_header_conformance,
]  # fmt: skip

# As a client gets it; made here, so that pytest lists one test for each operation.
schema = schemathesis.openapi.from_dict(
    SchemaGenerator().get_schema(request=None, public=True),
    # A row of another team is 404 before anything else is asked for. Conditional requests (RFC 9110, RFC 6585): no
    # If-Match is 428, and an old one is 412 before the body is read.
    config=schemathesis.Config.from_dict(
        {
            "seed": 1,
            "checks": {
                "missing_required_header": {"expected-statuses": [400, 401, 403, 404, 415, 422, 428]},
                "negative_data_rejection": {
                    "expected-statuses": [400, 401, 403, 404, 405, 406, 409, 412, 415, 422, 428]
                },
            },
        }
    ),
)
schema.app = application


@dataclass(frozen=True)
class Tenant:
    """A team with a row of every kind: values for path parameters, and the token of its owner."""

    values: dict[str, Any]
    token: str


def make_tenant(slug: str, text: str) -> Tenant:
    """Make a team with every kind of row. Each text of a row contains `text`."""
    team = rows.team(slug)
    Team.objects.filter(pk=team.pk).update(name=f"Team {text}")
    owner = rows.user(f"{slug}-owner-{text}", "owner", of=team)
    other = rows.user(f"{slug}-other-{text}", "approver", of=team)
    environment = create_environment(team, actor=owner, slug="live", name=f"Live {text}", prefix=f"live-{text}")
    where = rows.repository(f"{slug}/{text}", team)
    where.description = text
    where.save()
    base, image = rows.image(f"base {text}", layers=1), rows.image(f"image {text}", labels={"secret": text})
    rows.derive(base, image)
    for what, tag in ((base, "1.0"), (image, f"2.0-{text}")):
        rows.push(where, what, tag, owner)
    package = rows.package(f"package-{text}", "1.0")
    rows.carry(image, 0, package)
    rows.advisory(f"CVE-{text}", "high", package, fixed="1.1")
    Slot.objects.create(repository=where, environment=environment, image=base, tag="1.0", since=clock.now())
    promotion = promotions.request_promotion(where, image.digest, environment, actor=owner, reason=f"because {text}")
    recipe = Recipe.objects.create(
        repository=where, revision=1, containerfile=f"FROM {text}", author=owner, tag="latest"
    )
    watch = UpstreamWatch.objects.create(repository=where, tag=f"tag-{text}", created_by=owner)
    wave = RebuildWave.objects.create(repository=where, new_base=base, planned_by=owner)
    wave_job = RebuildJob.objects.create(
        wave=wave, repository=where, level=1, old_image=image, recipe=recipe, tag="latest", would_fix=[f"CVE-{text}"]
    )
    job = Job.objects.create(
        kind="scan", subject_id=image.pk, actor=owner, state="failed", finished_at=clock.now(), last_error=text
    )
    JobLogLine.objects.create(job=job, text=text)
    robot: Robot = create_robot(team.pk, actor=owner, name=f"robot-{text}")
    robot_token, _ = tokens.create_token(robot.user, kind=ApiToken.Kind.ROBOT, name=text, made_by=owner)
    own_token, secret = tokens.create_token(owner, kind=ApiToken.Kind.PERSONAL, name=text)
    window = PromotionWindow.objects.create(
        team=team, name=f"window-{text}", kind="allow", starts_at="2026-01-01T00:00:00", duration_s=86_400,
        time_zone="UTC", rule="FREQ=DAILY", created_by=owner,
    )  # fmt: skip
    hold = Hold.objects.create(team=team, environment=environment, scope="auto", reason=text, owner=owner)
    grant = RoleGrant.objects.filter(team=team, user=other).get()
    event = AuditEvent.objects.filter(team=team).latest("pk")
    channel = Channel.objects.create(
        team=team, name=f"channel-{text}", kind="webhook", host=f"{text}.example", topics=["x"], created_by=owner
    )
    check = ExternalCheck.objects.create(team=team, name=f"check-{slug}", host=f"{text}.example", created_by=owner)
    message = Message.objects.create(channel=channel, key=f"key-{text}", state="sent", subject=text, body=text,
                                     due_at=clock.now())  # fmt: skip
    item = InboxItem.objects.create(notice=Notice.objects.filter(repository=where).earliest("pk"), person=owner)
    values = {
        "team": slug,
        "digest": image.digest,
        "repository_id": where.pk,
        "watch_id": watch.pk,
        "grant_id": grant.pk,
        "robot_id": robot.pk,
        "job_id": wave_job.pk,
        "repositories": where.pk,
        "promotions": promotion.pk,
        "rebuild-waves": wave.pk,
        "environments": environment.pk,
        "windows": window.pk,
        "holds": hold.pk,
        "audit-events": event.pk,
        "jobs": job.pk,
        "notices": item.pk,
        "channels": channel.pk,
        "external-checks": check.pk,
        "messages": message.pk,
        "tokens": own_token.pk,
        "robot tokens": robot_token.pk,
    }
    return Tenant(values, secret)


@pytest.fixture(scope="module")
def _one_connection() -> Iterator[None]:
    """As in Django's own test client: the end of a request does not close the connection of the test."""
    request_started.disconnect(close_old_connections)
    request_finished.disconnect(close_old_connections)
    yield
    request_started.connect(close_old_connections)
    request_finished.connect(close_old_connections)


@pytest.fixture(scope="module")
def _registry() -> Iterator[None]:
    """An empty registry in memory, for the requests that ask one."""
    with pytest.MonkeyPatch.context() as patch:
        answer_with(InMemoryRegistry(), patch)
        yield


@pytest.fixture(scope="module")
def made(
    django_db_setup: None, django_db_blocker: Any, _one_connection: None, _registry: None
) -> Iterator[tuple[Tenant, Tenant]]:
    with sharing.database(django_db_blocker):
        with sharing.quick_settings():
            Role.objects.create(slug="crew", name="Crew", verbs=["image.view"])
            User.objects.create(username="admin", is_superuser=True)
            pair = make_tenant("shop", "own"), make_tenant("rival", SECRET)
        yield pair


@pytest.fixture
def tenants(db: None, made: tuple[Tenant, Tenant]) -> Iterator[tuple[Tenant, Tenant]]:
    """The caller's team, and one of which the caller may read nothing."""
    with sharing.taken_back():
        yield made


def value_for(name: str, path: str, tenant: Tenant) -> Any:
    """Return a row's id or name for a path parameter; None where any generated value will do."""
    area = path.removeprefix("/api/v1/").partition("/")[0]
    if name == "role":
        return "crew"
    if name == "token_id":
        return tenant.values["robot tokens" if "robots" in path else "tokens"]
    return tenant.values.get(area if name == "id" else name)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_operation_keeps_its_word(case: schemathesis.Case, tenants: tuple[Tenant, Tenant]) -> None:
    own, _rival = tenants
    if not case.meta.is_negative_at(ParameterLocation.PATH):
        # Of three requests, one is for a row of the caller's, one for the other team's, and one for a generated name.
        choice = zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode()) % 3
        for name in case.path_parameters or {}:
            value = value_for(name, case.operation.path, tenants[choice]) if choice < 2 else None
            if value is not None:
                case.path_parameters[name] = value
    # Uncompressed, because werkzeug's client does not decompress.
    headers = {"Authorization": f"Bearer {own.token}", "Accept-Encoding": "identity"}
    block = transaction.atomic()
    block._from_testcase = True  # type: ignore[attr-defined]  # so that a call of a registry counts as outside
    with block:
        response = case.call(headers=headers)
        case.validate_response(response, checks=CHECKS, headers=headers, transport_kwargs={"headers": headers})
        transaction.set_rollback(True)
    assert SECRET.encode() not in response.content


def test_other_team_reads_its_own_rows(tenants: tuple[Tenant, Tenant]) -> None:
    """The twin: the word that nobody else may read is in the answers to its own team."""
    client = werkzeug.test.Client(application)
    for path in ("images/", "repositories/", "promotions/", "rebuild-waves/", "jobs/", "audit-events/", "teams/"):
        for tenant, is_secret in zip(tenants, (False, True), strict=True):
            answer = client.get(
                f"/api/v1/{path}", headers={"Authorization": f"Bearer {tenant.token}", "Accept-Encoding": "identity"}
            )
            assert answer.status_code == 200
            assert (SECRET in answer.text) == is_secret, path
