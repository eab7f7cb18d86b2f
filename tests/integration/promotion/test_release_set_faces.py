"""Release sets on pages, in the API and in the command line."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from django.test import Client
from django.urls import reverse

from accounts import tokens
from accounts.models import User
from lifecycle.cli import client as cli
from lifecycle.cli.main import main
from lifecycle.core import clock
from lifecycle.environments.models import Environment
from lifecycle.promotion import release_running, release_sets
from lifecycle.promotion.models import ReleaseSet
from lifecycle.promotion.release_sets import Wanted
from tests.clients import Caller, to_application
from tests.factories import dock as rows

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def pair(dock: SimpleNamespace) -> SimpleNamespace:
    """A dock whose dev needs one approval, with a second repository: shop/api:1.0 and shop/web:2.0."""
    Environment.objects.filter(pk=dock.dev.pk).update(required_approvals=1)
    dock.dev.refresh_from_db()
    dock.web = rows.repository("shop/web", dock.team)
    dock.web_image = rows.image("web", scanned_at=clock.now(), package_count=1)
    rows.push(dock.web, dock.web_image, "2.0")
    return dock


def asked(pair: SimpleNamespace) -> ReleaseSet:
    wanted = [Wanted(pair.repository, tag="1.0"), Wanted(pair.web, pair.web_image.digest)]
    return release_sets.request_set(wanted, pair.dev, actor=pair.requester, reason="release 2")


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


def url(name: str, *args: Any) -> str:
    return reverse(f"lifecycle:{name}", args=args)


def test_set_over_the_api(pair: SimpleNamespace) -> None:
    asker, approver, runner = Caller(pair.requester), Caller(pair.approver), Caller(pair.deployer)
    body: dict[str, Any] = {
        "environment": "dev",
        "reason": "release 2",
        "members": [
            {"repository": "shop/api", "tag": "1.0"},
            {"repository": "shop/web", "digest": pair.web_image.digest},
        ],
    }
    for wrong in ({"members": body["members"][:1]}, {"members": [{"repository": "shop/api"}, body["members"][1]]}):
        assert asker.post("release-sets/", body | wrong).status_code == 400
    assert approver.post("release-sets/", body).status_code == 403
    made = asker.post("release-sets/", body)
    assert made.status_code == 201
    shown = made.json()
    path = f"release-sets/{shown['id']}/"
    assert [(row["repository"], row["tag"], row["digest"], row["state"]) for row in shown["members"]] == [
        ("shop/api", "1.0", pair.image.digest, "open"),
        ("shop/web", "2.0", pair.web_image.digest, "open"),
    ]
    assert shown["members"][0]["requirements"][0]["name"] == "approvals"
    assert Caller(pair.outsider).get(path).status_code == 404
    member = shown["members"][0]["promotion"]
    refused = approver.post(f"promotions/{member}/approve/")
    assert (refused.status_code, f"/release-sets/{shown['id']}/" in refused.json()["detail"]) == (409, True)
    assert asker.get(f"promotions/{member}/").json()["release_set"] == shown["id"]
    assert approver.post(f"{path}object/", {"reason": "wait"}).json()["votes"][0]["value"] == "object"
    assert approver.post(f"{path}withdraw-vote/").json()["state"] == "open"
    ready = approver.post(f"{path}approve/", {"reason": "seen"}).json()
    assert (ready["state"], len(ready["votes"]), ready["votes"][0]["voter"]) == ("ready", 1, "approver")
    assert runner.post(f"{path}execute/").json()["state"] == "executing"
    assert runner.post(f"{path}execute/").status_code == 409
    listed = asker.get("release-sets/", state="executing", environment="dev").json()["results"]
    assert [(row["id"], row["size"], row["team"]) for row in listed] == [(shown["id"], 2, "shop")]
    assert asker.get("release-sets/", state="gone").status_code == 400


def test_set_in_the_browser(pair: SimpleNamespace) -> None:
    asker, approver, runner = browser(pair.requester), browser(pair.approver), browser(pair.deployer)
    start = asker.get(url("release-set-new"), {"image": "shop/api:1.0"}).content.decode()
    assert "shop/api:1.0</textarea>" in start
    form = {"environment": pair.dev.pk, "reason": "release 2", "images": "shop/api:1.0\nshop/gone:1\n"}
    refused = asker.post(url("release-set-new"), form)
    assert (refused.status_code, "shop/gone:1: Repository not found" in refused.content.decode()) == (422, True)
    assert browser(pair.outsider).get(url("release-set-new")).status_code == 404
    answer = asker.post(url("release-set-new"), form | {"images": f"shop/api:1.0\nshop/web@{pair.web_image.digest}"})
    made = ReleaseSet.objects.get()
    assert answer.headers["Location"] == url("release-set", made.pk)
    page = asker.get(url("release-set", made.pk)).content.decode()
    assert ["shop/api" in page, "shop/web" in page, "You cannot approve" in page] == [True] * 3
    assert browser(pair.outsider).get(url("release-set", made.pk)).status_code == 404
    # One entry in the inbox, and each member says where it is decided.
    inbox = approver.get(url("inbox")).content.decode()
    assert (inbox.count(f">{made}</a>"), "No requests to vote on." in inbox) == (1, True)
    member = made.members.first()
    assert member is not None
    alone = approver.get(url("promotion", member.pk)).content.decode()
    assert (f">RS-{made.pk}</a>" in alone, "decided and run only with the whole set" in alone) == (True, True)
    clicked = approver.post(url("promotion-approve", member.pk))
    assert (clicked.status_code, f"part of {made}" in clicked.content.decode()) == (409, True)
    assert f">RS-{made.pk}</a>" in asker.get(url("promotions")).content.decode()
    assert f">RS-{made.pk}</a>" in asker.get(url("environments")).content.decode()
    assert approver.post(url("release-set-reject", made.pk), {"reason": ""}).status_code == 422
    assert approver.post(url("release-set-approve", made.pk), {"reason": "seen"}).status_code == 302
    assert approver.post(url("release-set-approve", made.pk)).status_code == 409
    assert f">{made}</a>" in runner.get(url("inbox")).content.decode()
    assert "Run release set" in runner.get(url("release-set", made.pk)).content.decode()
    assert runner.post(url("release-set-execute", made.pk)).status_code == 302
    running = runner.get(url("release-set", made.pk)).content.decode()
    assert url("release-set-progress", made.pk) in running
    assert "Waiting for a worker." in runner.get(url("release-set-progress", made.pk)).content.decode()
    release_running.begin_reverting(made.pk, why="The registry has no room.", can_retry=False)
    assert "being put back" in asker.get(url("release-set", made.pk)).content.decode()
    release_running.end_reverting(made.pk)
    assert f">{made}</a>" in asker.get(url("inbox")).content.decode()
    page = asker.get(url("release-set", made.pk)).content.decode()
    assert ["dev keeps the images that it had" in page, "The registry has no room." in page] == [True, True]
    assert f">{made}</a>" not in asker.get(url("inbox")).content.decode()  # it was seen
    listed = asker.get(url("release-sets"), {"state": "failed"}).content.decode()
    assert (f">{made}</a>" in listed, "No sets match" in listed) == (True, False)


def test_set_on_the_command_line(
    pair: SimpleNamespace, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def run(user: User, *words: object) -> tuple[int, str, str]:
        text = tokens.create_token(user, kind="pat", name="cli")[1]
        cli.save_login(cli.Login("http://localhost", text))
        code = main(["release", *map(str, words)], transport=httpx.MockTransport(to_application))
        return code, *capsys.readouterr()

    web = f"shop/web@{pair.web_image.digest}"
    place = ("--environment", "dev", "--reason", "release 2")
    assert run(pair.requester, "request", "shop/api", web, *place)[0] == cli.EXIT_USAGE
    made = json.loads(run(pair.requester, "request", "shop/api:1.0", web, *place, "--json")[1])
    number = made["id"]
    code, out, _ = run(pair.requester, "list", "--state", "open")
    assert (code, f"RS-{number}" in out) == (0, True)
    assert "1 approval" in run(pair.requester, "show", f"RS-{number}")[1]
    assert run(pair.requester, "approve", number)[0] == cli.EXIT_ERROR
    assert "ready" in run(pair.approver, "approve", number)[1]

    def fail(_: float) -> None:
        release_running.begin_reverting(number, why="The registry has no room.", can_retry=False)
        release_running.end_reverting(number)

    monkeypatch.setattr("lifecycle.cli.waiting.time.sleep", fail)
    code, _, err = run(pair.deployer, "execute", "--wait", number)
    assert (code, "failed. The registry has no room." in err) == (cli.EXIT_ERROR, True)
    again = asked(pair)
    assert "withdrawn" in run(pair.requester, "withdraw", f"rs-{again.pk}", "--reason", "later")[1]
