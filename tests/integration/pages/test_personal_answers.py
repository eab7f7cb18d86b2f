"""Personal answers are never stored by browsers or proxies; metrics need a token or this machine."""

from __future__ import annotations

import pytest
from django.test import Client

from accounts import tokens
from accounts.models import User
from tests.factories.people import person

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.mark.parametrize(
    "path", ["/images/", "/inbox/", "/account/tokens/", "/api/v1/images/", "/api/v1/nothing/", "/accounts/sign-in/"]
)
def test_personal_answers_are_not_stored(path: str) -> None:
    kim = person("kim")
    browser = Client()
    browser.force_login(kim, backend=BACKEND)
    script = Client(headers={"Authorization": f"Bearer {tokens.create_token(kim, kind='pat', name='t')[1]}"})
    for client in (Client(), browser, script):
        assert "no-store" in client.get(path)["Cache-Control"]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, 200),
        ({"REMOTE_ADDR": "::1"}, 200),
        ({"REMOTE_ADDR": "::ffff:127.0.0.1"}, 200),
        ({"REMOTE_ADDR": "192.0.2.7"}, 401),
        ({"REMOTE_ADDR": ""}, 401),
        ({"HTTP_X_FORWARDED_FOR": "127.0.0.1"}, 401),
        ({"HTTP_FORWARDED": "for=127.0.0.1"}, 401),
        ({"HTTP_X_REAL_IP": "127.0.0.1"}, 401),
        ({"HTTP_VIA": "1.1 proxy"}, 401),
    ],
)
def test_metrics_need_no_token_only_on_this_machine(more: dict[str, str], status: int) -> None:
    answer = Client().get("/metrics", **more)  # type: ignore[arg-type]  # WSGI variables
    assert answer.status_code == status
    assert (b"gravingdock_jobs" in answer.content) == (status == 200)


def test_metrics_from_elsewhere_need_the_token_of_an_admin_or_the_setting(settings) -> None:
    settings.METRICS_TOKEN = "scrape-" + "x" * 30
    admin = User.objects.create(username="ada", is_superuser=True)
    texts = [tokens.create_token(user, kind="pat", name="t")[1] for user in (admin, person("kim"))]

    def ask(scheme: str) -> int:
        return Client().get("/metrics", REMOTE_ADDR="192.0.2.7", HTTP_AUTHORIZATION=scheme).status_code

    assert [ask(f"Bearer {text}") for text in (*texts, settings.METRICS_TOKEN, "wrong", "")] == [
        200, 401, 200, 401, 401,
    ]  # fmt: skip
    assert ask(f"Basic {settings.METRICS_TOKEN}") == 401
    settings.METRICS_TOKEN = ""
    assert ask("Bearer ") == 401
