"""Alerts show and tell each team, and each person, only what is theirs to see."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from lifecycle.advisories.models import Advisory, Match
from lifecycle.alerts import services
from lifecycle.alerts.models import Alert, SeenFinding
from lifecycle.authority.services import create_environment
from lifecycle.core import clock
from lifecycle.core.errors import NotFound, NotPermitted
from lifecycle.environments.models import Environment, Slot
from lifecycle.notices.models import Notice
from lifecycle.policies.due_dates import save_due_dates
from lifecycle.registry.models import Image
from lifecycle.sbom.models import PackageVersion
from tests.clients import Caller, browser
from tests.factories import dock
from tests.factories.alerting import look, package, raised

pytestmark = pytest.mark.django_db


def test_who_may_see_and_act(fleet):
    perl = package("perl-base")
    dock.advisory("CVE-2026-9", "high", perl)
    look(perl)
    alert = Alert.objects.get()
    with pytest.raises(NotFound):  # of shop: the base is hidden
        services.acknowledge(alert.pk, actor=fleet["shop_dev"])
    assert Caller(fleet["shop_dev"]).get("alerts/").json()["results"] == []
    assert browser(fleet["shop_dev"]).get(f"/alerts/{alert.pk}/").status_code == 404
    viewer = dock.user("viewer", "viewer", of=dock.team("base"))
    with pytest.raises(NotPermitted):
        services.acknowledge(alert.pk, actor=viewer)
    # The team of the base sees its own images, and neither names nor counts of those that wait for it.
    answer = Caller(fleet["base_dev"]).get(f"alerts/{alert.pk}/").json()
    assert {row["repository"] for row in answer["waiting_on_base"]} == {"base/python"}
    assert "shop" not in json.dumps(answer)
    assert "waiting" not in answer["evidence"]
    both = Caller(fleet["reader"]).get(f"alerts/{alert.pk}/").json()["waiting_on_base"]
    assert {row["repository"] for row in both} > {"base/python", "shop/api"}
    assert Caller(fleet["base_dev"]).post(f"alerts/{alert.pk}/acknowledge/", {"reason": "x"}).json()["state"] == (
        "acknowledged"
    )


def test_person_with_a_part_of_a_team_sees_and_is_told_that_part(fleet):
    person = dock.user("part", "maintainer", of=dock.team("shop"))
    person.role_grants.update(repository_pattern="shop/api", repository_like="shop/api")
    dock.carry(Image.objects.get(digest=dock.sha("shop/static")), 1, package("urllib3"))
    alert = raised(fleet)
    assert alert.images == 2
    notice = Notice.objects.get(items__person=person)
    assert notice.repository.name == "shop/api"
    assert "in 1 image;" in notice.text
    row = Caller(person).get("alerts/").json()["results"][0]
    assert (row["id"], row["images"]) == (alert.pk, 1)
    with pytest.raises(NotPermitted):
        services.resolve(alert.pk, actor=person, reason="x")


def test_person_with_many_repositories_of_a_team_gets_one_notice(fleet):
    urllib3, person = package("urllib3"), dock.user("parts", "maintainer", of=dock.team("shop"))
    person.role_grants.update(repository_pattern="shop/part-*", repository_like="shop/part-%")
    single = dock.user("single", "maintainer", of=dock.team("shop"))
    single.role_grants.update(repository_pattern="shop/part-7", repository_like="shop/part-7")
    for number in range(60):
        made = dock.image(f"shop/part-{number}", layers=1)
        dock.carry(made, 0, urllib3)
        dock.push(dock.repository(f"shop/part-{number}"), made, "1.0")
    alert = raised(fleet)
    assert alert.images == 61
    notice = Notice.objects.get(items__person=person)
    assert notice.subject.endswith("new finding in 60 repositories of team shop")
    assert "in 60 images;" in notice.text
    assert Notice.objects.get(items__person=single).repository.name == "shop/part-7"


def other_team(name="CVE-2026-20", severity="critical"):
    """Let an image of another team have another version of urllib3 with the same vulnerability, and worse."""
    urllib3, older = package("urllib3"), dock.package("urllib3", "1.20", kind="pypi")
    made = dock.image("yard/app", layers=1)
    dock.carry(made, 0, older)
    dock.push(dock.repository("yard/app"), made, "1.0")
    dock.advisory(name, "medium", urllib3, fixed="2.6.0")
    Match.objects.create(
        advisory=Advisory.objects.get(osv_id=name), package=older, severity=severity, interval_text="secret of yard"
    )
    return urllib3, older


def shown(alert):
    return alert.severity, [row["package"] for row in alert.evidence["packages"]]


def test_alert_has_only_package_versions_and_severities_of_its_team(fleet):
    urllib3, older = other_team()
    SeenFinding.objects.create(package=urllib3, vulnerability="CVE-2026-20", severity="low")
    SeenFinding.objects.create(package=older, vulnerability="CVE-2026-20", severity="high")
    look(urllib3, older)
    found = {row.team.slug: row for row in Alert.objects.select_related("team")}
    assert {row.kind for row in found.values()} == {"finding.worsened"}
    assert shown(found["shop"]) == ("medium", ["pypi urllib3 1.26.5"])
    assert found["shop"].evidence["severity_before"] == "low"
    assert shown(found["yard"]) == ("critical", ["pypi urllib3 1.20"])
    assert found["yard"].evidence["severity_before"] == "high"
    assert "yard" not in json.dumps(Caller(fleet["shop_dev"]).get(f"alerts/{found['shop'].pk}/").json())
    assert not [row for row in Notice.objects.filter(team__slug="shop") if "yard" in row.text]

    Match.objects.filter(advisory__osv_id="CVE-2026-20").update(valid_to=clock.now())
    Alert.objects.all().delete()
    look(urllib3, older)
    fixed = Alert.objects.filter(kind="finding.fixed").values_list("team__slug", "severity")
    assert set(fixed) == {("shop", "medium"), ("yard", "critical")}


def test_teams_of_a_fixed_base_are_told_only_of_their_own_package_versions(fleet):
    perl, older = package("perl-base"), dock.package("perl-base", "5.30")
    second = dock.image("base/debian older", layers=1)
    dock.carry(second, 0, older)
    dock.push(dock.repository("base/debian"), second, "older")
    dock.advisory("CVE-2026-21", "low", perl, fixed="5.36.0-9")
    Match.objects.create(advisory=Advisory.objects.get(osv_id="CVE-2026-21"), package=older, severity="critical")
    look(perl, older)
    assert Alert.objects.get().severity == "critical"
    for tag in ("old", "older"):
        dock.push(dock.repository("base/debian"), fleet["new"], tag)
    look(after=timedelta(minutes=2))
    assert shown(Alert.objects.get(team__slug="shop")) == ("low", ["deb perl-base 5.36.0-7"])


def test_overdue_alert_has_only_due_dates_and_images_of_its_team(fleet, django_user_model):
    admin = django_user_model.objects.create_user("admin", is_superuser=True, password="x")
    urllib3, older = other_team(severity="medium")
    dock.carry(Image.objects.get(digest=dock.sha("shop/static")), 1, urllib3)  # does not run in production
    PackageVersion.objects.update(first_seen_at=clock.now() - timedelta(days=90))
    Match.objects.update(valid_from=clock.now() - timedelta(hours=1))
    Match.objects.filter(advisory__osv_id="CVE-2026-20").update(valid_from=clock.now() - timedelta(days=10))
    Match.objects.filter(package=older).update(valid_from=clock.now() - timedelta(days=60))
    place = create_environment(dock.team("shop"), actor=admin, slug="live", name="Live", prefix="live")
    Environment.objects.filter(pk=place.pk).update(is_production=True)
    Slot.objects.create(repository=dock.repository("shop/api"), environment=place, image=fleet["api"], tag="1.0")
    save_due_dates(
        [{"days": 5, "severity": "medium", "exposure": "production"}, {"days": 30, "severity": "medium"}],
        actor=admin, seen=0,
    )  # fmt: skip
    look(urllib3, older, after=timedelta(minutes=5))
    found = {row.team.slug: row for row in Alert.objects.filter(kind="finding.overdue", vulnerability="CVE-2026-20")}
    assert found["shop"].repository_ids == [dock.repository("shop/api").pk]
    assert (found["shop"].images, shown(found["shop"])) == (1, ("medium", ["pypi urllib3 1.26.5"]))
    assert found["shop"].evidence["due_at"] > (clock.now() - timedelta(days=6)).isoformat()
    assert found["yard"].evidence["due_at"] < (clock.now() - timedelta(days=29)).isoformat()
