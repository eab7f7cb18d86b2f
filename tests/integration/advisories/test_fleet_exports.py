"""The findings of a team or a repository as one file: what the reader sees, and nothing else."""

from __future__ import annotations

import csv
import io
import json

import psycopg2
import pytest
from django.db import connection

from lifecycle.advisories.models import AffectedInterval, Feed, Match
from lifecycle.core.errors import Malformed
from lifecycle.environments.models import Environment, Slot
from lifecycle.evidence import fleet
from lifecycle.evidence.exporting import export, packages_in
from lifecycle.registry.models import Image
from lifecycle.sbom.models import PackageVersion
from lifecycle.versions import version_key
from lifecycle.vex.reading import parse
from tests.clients import Caller, browser
from tests.factories import dock
from tests.factories.vexing import decision

pytestmark = pytest.mark.django_db


@pytest.fixture
def harbour(db, settings):
    """The harbour with version ranges, so that its findings are computed; one person can decide alone."""
    settings.VEX_SECOND_PERSON = False
    made = dock.harbour()
    for package in PackageVersion.objects.all():
        package.version_key = version_key(package.scheme, package.match_version)
        package.save(update_fields=["version_key"])
    for match in Match.objects.select_related("package"):
        AffectedInterval.objects.create(
            advisory=match.advisory, ecosystem=match.package.ecosystem, release=match.package.release,
            name=match.package.match_name, scheme=match.package.scheme, fixed_version=match.fixed_version,
        )  # fmt: skip
    return made


def text_of(answer):
    assert answer.status_code == 200, answer
    return b"".join(answer.streaming_content).decode()


def rows_of(answer):
    return list(csv.DictReader(io.StringIO(text_of(answer))))


def test_a_team_has_the_findings_of_all_its_images_in_use(harbour):
    viewer = dock.user("viewer", "viewer", of=dock.team("shop"))
    rows = rows_of(Caller(viewer).get("findings/exports/findings.csv/", team="shop"))
    assert {row["repository"] for row in rows} == {"shop/api", "shop/worker", "shop/static", "shop/jobs"}
    of_api = [row for row in rows if row["repository"] == "shop/api"]
    _, parts = export(harbour["api"], "findings.csv", metadata={}, reader=viewer)
    single = list(csv.DictReader(io.StringIO(b"".join(parts).decode())))
    names = ("purl", "vulnerability", "severity", "state", "fixed_version", "due_at")
    assert [[row[name] for name in names] for row in of_api] == [[row[name] for name in names] for row in single]
    assert {(row["tags"], row["digest"]) for row in of_api} == {("1.0", harbour["api"].digest)}
    page = rows_of(browser(viewer).get("/findings/export/findings.csv", {"team": "shop"}))
    assert page == rows


def test_a_repository_has_older_images_that_run(harbour):
    viewer = dock.user("viewer", "viewer", of=dock.team("base"))
    place = Environment.objects.create(team=dock.team("base"), slug="live", name="Live", prefix="live", position=1)
    Slot.objects.create(repository=dock.repository("base/debian"), environment=place, image=harbour["old"], tag="x")
    rows = rows_of(Caller(viewer).get("findings/exports/findings.csv/", repository="base/debian"))
    assert {(row["digest"], row["tags"], row["environments"]) for row in rows} >= {(harbour["old"].digest, "", "live")}
    other = dock.user("partner", "viewer", of=dock.team("shop"))
    assert Caller(other).get("findings/exports/findings.csv/", repository="base/debian").status_code == 404


def test_what_is_unknown_is_in_the_file(harbour):
    Image.objects.filter(pk=harbour["api"].pk).update(scanned_at=None)
    viewer = dock.user("viewer", "viewer", of=dock.team("shop"))
    rows = rows_of(Caller(viewer).get("findings/exports/findings.csv/", repository="shop/api"))
    unknown = [row for row in rows if not row["purl"]]
    assert [row["state"] for row in unknown] == ["unknown"]
    assert "not scanned yet" in unknown[0]["reason"]
    sarif = json.loads(text_of(Caller(viewer).get("findings/exports/sarif.json/", repository="shop/api")))
    assert any("are unknown" in result["message"]["text"] for result in sarif["runs"][0]["results"])


def test_sarif_is_one_run_whose_rules_fit_the_results(harbour):
    viewer = dock.user("viewer", "viewer", of=dock.team("shop"))
    sarif = json.loads(text_of(Caller(viewer).get("findings/exports/sarif.json/", team="shop")))
    (run,) = sarif["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    prints = [result["partialFingerprints"]["vulnerabilityAndPackage/v1"] for result in run["results"]]
    assert len(set(prints)) == len(prints)
    places = {item["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for item in run["results"]}
    assert "shop/api:1.0" in places


def test_openvex_has_the_decisions(harbour):
    viewer = dock.user("viewer", "viewer", of=dock.team("shop"))
    empty = json.loads(text_of(Caller(viewer).get("findings/exports/openvex.json/", team="shop")))
    assert empty["statements"] == []
    decision(dock.repository("shop/api"), by=harbour["reader"], vulnerability="CVE-2011-4116")
    said = json.loads(text_of(Caller(viewer).get("findings/exports/openvex.json/", team="shop")))
    assert [item["vulnerability"]["name"] for item in said["statements"]] == ["CVE-2011-4116"]


def test_other_teams_and_odd_requests(harbour):
    outsider = dock.user("outsider", "owner", of=dock.team("bank"))
    api = Caller(outsider)
    assert api.get("findings/exports/findings.csv/", team="shop").status_code == 404
    assert api.get("findings/exports/findings.csv/", repository="shop/api").status_code == 404
    assert rows_of(api.get("findings/exports/findings.csv/", team="bank")) == []
    assert api.get("findings/exports/findings.csv/").status_code == 400
    assert api.get("findings/exports/findings.csv/", team="bank", repository="shop/api").status_code == 400
    assert api.get("findings/exports/all.zip/", team="bank").status_code == 404


def test_one_user_writes_one_file_at_a_time(harbour):
    viewer = dock.user("viewer", "viewer", of=dock.team("shop"))
    known = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    other = psycopg2.connect(**{name: known[name] for name in names if name in known})
    cursor, lock = other.cursor(), [f"findings-export:{viewer.pk}"]
    cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 7009))", lock)
    assert Caller(viewer).get("findings/exports/findings.csv/", team="shop").status_code == 409
    assert rows_of(Caller(harbour["reader"]).get("findings/exports/findings.csv/", team="shop"))
    cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 7009))", lock)
    _, _, parts = fleet.export_fleet(viewer, "findings.csv", team="shop")
    cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 7009))", lock)
    assert cursor.fetchone() == (False,)
    parts.close()  # as a response does when its reader goes away
    cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 7009))", lock)
    assert cursor.fetchone() == (True,)
    other.close()
    assert rows_of(Caller(viewer).get("findings/exports/findings.csv/", team="shop"))


def test_too_many_images_are_refused_and_not_left_out(harbour, monkeypatch):
    viewer = dock.user("viewer", "viewer", of=dock.team("shop"))
    used = len(fleet.images_in_use(viewer, fleet.scope_for(viewer, team="shop").repositories))
    monkeypatch.setattr(fleet, "IMAGES_MAX", used)
    assert Caller(viewer).get("findings/exports/findings.csv/", team="shop").status_code == 200
    monkeypatch.setattr(fleet, "IMAGES_MAX", used - 1)
    with pytest.raises(Malformed, match="at most"):
        fleet.export_fleet(viewer, "findings.csv", team="shop")
    assert Caller(viewer).get("findings/exports/findings.csv/", team="shop").status_code == 400


def test_cyclonedx_and_spdx_have_the_packages_of_each_image(harbour):
    viewer = dock.user("viewer", "viewer", of=dock.team("shop"))
    wanted = {
        used.name: {package.purl for package in packages_in(used.image)}
        for used in fleet.images_in_use(viewer, fleet.scope_for(viewer, team="shop").repositories)
    }
    assert any(wanted.values())
    cyclonedx = json.loads(text_of(Caller(viewer).get("findings/exports/cdx.json/", team="shop")))
    found = {row["name"]: {each["purl"] for each in row["components"]} for row in cyclonedx["components"]}
    assert found == wanted
    references = [row["bom-ref"] for row in cyclonedx["components"]]
    references += [each["bom-ref"] for row in cyclonedx["components"] for each in row["components"]]
    assert len(set(references)) == len(references)
    text = text_of(Caller(viewer).get("findings/exports/spdx.json/", team="shop"))
    spdx = json.loads(text)
    rows = {row["SPDXID"]: row for row in spdx["packages"]}
    assert len(rows) == len(spdx["packages"])
    found = {name: set() for name in wanted}
    for each in spdx["relationships"]:
        if each["relationshipType"] == "CONTAINS":
            purl = rows[each["relatedSpdxElement"]]["externalRefs"][0]["referenceLocator"]
            found[rows[each["spdxElementId"]]["name"]].add(purl)
    assert found == wanted
    api = json.loads(text_of(Caller(viewer).get("findings/exports/cdx.json/", repository="shop/api")))
    assert [row["name"] for row in api["components"]] == ["shop/api:1.0"]


def test_images_with_unknown_packages_say_so_in_cyclonedx_and_spdx(harbour):
    Image.objects.filter(pk=harbour["api"].pk).update(scanned_at=None)
    viewer = dock.user("viewer", "viewer", of=dock.team("shop"))
    for kind in ("cdx.json", "spdx.json"):
        assert "not scanned yet" in text_of(Caller(viewer).get(f"findings/exports/{kind}/", repository="shop/api"))


def test_cyclonedx_vex_names_each_package_in_its_image(harbour):
    viewer = dock.user("viewer", "viewer", of=dock.team("shop"))
    decision(dock.repository("shop/api"), by=harbour["reader"], vulnerability="CVE-2011-4116")
    document = json.loads(text_of(Caller(viewer).get("findings/exports/vex.cdx.json/", team="shop")))
    (said,) = document["vulnerabilities"]
    known = {each["bom-ref"] for row in document["components"] for each in row.get("components", ())}
    assert (said["id"], said["analysis"]["state"]) == ("CVE-2011-4116", "not_affected")
    assert {each["ref"] for each in said["affects"]} <= known
    assert parse(json.dumps(document).encode()).statements


def test_sarif_links_a_private_advisory_to_our_page(harbour, settings):
    viewer = dock.user("viewer", "viewer", of=dock.team("shop"))

    def links() -> set[str]:
        sarif = json.loads(text_of(Caller(viewer).get("findings/exports/sarif.json/", team="shop")))
        return {rule.get("helpUri", "") for rule in sarif["runs"][0]["tool"]["driver"]["rules"]}

    assert not any(link.startswith(settings.PUBLIC_URL) for link in links())
    match = Match.objects.filter(package__name="libssl3").select_related("advisory").earliest("pk")
    Feed.objects.filter(pk=match.advisory.feed_id).update(kind=Feed.Kind.OWN)
    assert f"{settings.PUBLIC_URL}/advisories/{match.advisory.osv_id}/" in links()
