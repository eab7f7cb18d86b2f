"""The image page: configuration, comparison with any image, rescan, filters and exports."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Image, Repository
from lifecycle.sbom import services
from lifecycle.sbom.models import PackageVersion
from lifecycle.sbom.packages import Package
from tests.factories import dock
from tests.spdx import spdx_faults

pytestmark = pytest.mark.django_db


@pytest.fixture
def quay() -> dict[str, Any]:
    return dock.quay()


@pytest.fixture
def reader(quay: dict[str, Any], client: Client) -> Client:
    client.force_login(quay["reader"])
    return client


@pytest.fixture
def place(quay: dict[str, Any]) -> str:
    return f"/t/shop/r/shop/api/i/{quay['new_api'].digest}/"


def browser(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_configuration_shows_what_runs(quay, reader, place):
    config = {
        "Entrypoint": ["/bin/sh", "-c", "run all"], "User": "1000", "Env": ["A=1=2", "EMPTY="],
        "ExposedPorts": {"80/tcp": {}}, "Labels": {"x": "<b>y</b>"}, "Cmd": "odd", "Volumes": None,
    }  # fmt: skip
    Image.objects.filter(pk=quay["new_api"].pk).update(config={"config": config})
    page = reader.get(place + "?tab=configuration").content.decode()
    for text in ("/bin/sh -c &quot;run all&quot;", "1000", "1=2", "80/tcp", "&lt;b&gt;y", "odd"):
        assert text in page
    Image.objects.filter(pk=quay["new_api"].pk).update(config={"config": ["not", "a map"]})
    assert reader.get(place + "?tab=configuration").status_code == 200
    Image.objects.filter(pk=quay["new_api"].pk).update(config={})
    assert "is unknown" in reader.get(place + "?tab=configuration").content.decode()


@pytest.mark.parametrize(
    "query",
    ["from=1.0&repository=shop/api", "from=shop/api:1.0", "from={old}", "from={short}", "from=shop/api@{old}",
     "from=shop/api:1.0&other={new}&to=ignored"],
)  # fmt: skip
def test_any_two_images_can_be_compared(quay, reader, query):
    old, new = quay["api"].digest, quay["new_api"].digest
    query = query.format(old=old, short=old[7:19], new=new)
    answer = reader.get(f"/compare/?to={new}&{query}" if "to=" not in query else f"/compare/?{query}")
    assert answer["Location"] == f"/compare/{old}...{new}/"


@pytest.mark.parametrize("name", ["no-such", "shop/api:no-such", "ffffff", "base/debian:bookworm"])
def test_comparison_form_keeps_what_was_typed(quay, name):
    user = dock.user("api-only", "viewer", of=dock.team("shop"))
    answer = browser(user).get("/compare/", {"from": name, "to": quay["new_api"].digest})
    assert answer.status_code == 422
    text = answer.content.decode()
    assert f'value="{name}"' in text
    assert f"{name}: not found" in text


def test_findings_are_filtered_by_package(reader, place):
    page = reader.get(f"{place}?tab=findings&q=urllib").context["page"]
    assert {match.package.name for match in page.rows} == {"urllib3"}
    page = reader.get(f"{place}?tab=findings&q=perl").context["page"]
    assert {match.package.name for match in page.rows} == {"perl-base"}
    assert 'href="/advisories/CVE-2011-4116/"' in reader.get(f"{place}?tab=findings").content.decode()


def test_rescan_queues_a_scan_once_and_says_who_may(quay, reader, place):
    digest = quay["new_api"].digest
    assert "Rescan" in reader.get(place).content.decode()
    answer = reader.post(place + "rescan/")
    job = Job.objects.get(kind="scan", subject_id=quay["new_api"].pk)
    assert answer["Location"] == f"/jobs/{job.pk}/"
    assert (job.actor, job.payload) == (quay["reader"], {"again": True})
    assert AuditEvent.objects.get(action="image.rescan_requested").digest == digest
    assert reader.post(place + "rescan/").status_code == 409
    assert browser(quay["approver"]).post(place + "rescan/").status_code == 403
    assert "You need image.scan" in browser(quay["approver"]).get(place).content.decode()


def test_new_scan_replaces_the_old_content_and_a_repeated_scan_does_not(quay):
    image, reader = quay["new_api"], quay["reader"]
    content = services.Content([Package("pkg:pypi/six@1.0")])
    assert services.store({image.pk: content}, actor=reader).image_ids == []
    assert services.store({image.pk: content}, actor=reader, replaces=True).image_ids == [image.pk]
    image.refresh_from_db()
    names = image.image_inventories.values_list("inventory__inventory_packages__package__name", flat=True)
    assert (list(names), image.package_count) == (["six"], 1)


def test_exports_have_every_package_and_finding(quay, reader, place):
    def body(kind):
        answer = reader.get(place + f"export/{kind}")
        assert answer.status_code == 200
        assert "attachment" in answer["Content-Disposition"]
        return b"".join(answer.streaming_content).decode()

    bom = json.loads(body("cdx.json"))
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.5")
    assert {item["purl"] for item in bom["components"]} >= {"pkg:pypi/urllib3@2.5.0", "pkg:pypi/httpx@0.27.2"}
    rows = list(csv.DictReader(io.StringIO(body("packages.csv"), newline="")))
    assert len(rows) == len(bom["components"])
    found = json.loads(body("findings.json"))["findings"]
    assert [row["advisory"] for row in csv.DictReader(io.StringIO(body("findings.csv"), newline=""))] == [
        row["advisory"] or "" for row in found
    ]
    assert reader.get(place + "export/syft.json").status_code == 404
    assert reader.get(place + "export/exe").status_code == 404


@pytest.mark.parametrize(
    ("address", "sort"),
    [
        ("/jobs/", "created"),
        ("/audit/", "time"),
        ("/rebuilds/", "age"),
        ("/promotions/", "requested"),
        ("/t/shop/r/shop/jobs/?tab=untagged", "pushed"),
        ("/people/", "created"),
        ("/teams/", "created"),
    ],
)
def test_lists_by_time_are_newest_first_and_can_be_reversed(quay, reader, address, sort):
    User.objects.filter(pk=quay["reader"].pk).update(is_superuser=True)
    joined = address + ("&" if "?" in address else "?")
    plain, newest, oldest = (reader.get(where) for where in (address, f"{joined}sort={sort}", f"{joined}sort=-{sort}"))
    ids = [row.pk for row in newest.context["page"].rows]
    assert ids == [row.pk for row in oldest.context["page"].rows][::-1]
    assert sort == "created" or ids == [row.pk for row in plain.context["page"].rows]
    assert 'class="sorts"' in newest.content.decode() or not ids
    assert reader.get(f"{joined}sort=zzz").status_code == 400


def test_spdx_export_follows_the_specification(quay, reader, place):
    odd = dock.package("odd", "", kind="pypi")
    PackageVersion.objects.filter(pk=odd.pk).update(purl="", problem="no purl")
    dock.carry(quay["new_api"], 1, odd)
    answer = reader.get(place + "export/spdx.json")
    assert answer["Content-Type"] == "application/spdx+json"
    document = json.loads(b"".join(answer.streaming_content))
    assert spdx_faults(document) == []
    bom = json.loads(b"".join(reader.get(place + "export/cdx.json").streaming_content))
    named = {(row["name"], row.get("versionInfo", "")) for row in document["packages"][1:]}
    assert named == {(row["name"], row["version"]) for row in bom["components"]}
    assert document["packages"][0]["name"] == quay["new_api"].digest
    (unjudged,) = [row for row in document["packages"] if row["name"] == "odd"]
    assert unjudged["annotations"][0]["comment"] == "gravingdock:problem=no purl"


@pytest.mark.parametrize(
    ("part", "change", "fault"),
    [
        (None, {"documentNamespace": "https://dock.example/#a"}, "/documentNamespace"),
        (None, {"dataLicense": "MIT"}, "/dataLicense"),
        (None, {"creationInfo": {"created": "2026-11-28", "creators": ["gravingdock"]}}, "/creationInfo"),
        ("packages", {"SPDXID": "SPDXRef-a_b"}, "/packages"),
        ("packages", {"SPDXID": "SPDXRef-DOCUMENT"}, "twice"),
        ("packages", {"name": ""}, "/packages"),
        ("packages", {"colour": "red"}, "/packages"),
        ("relationships", {"relatedSpdxElement": "SPDXRef-none"}, "names nothing"),
    ],
)
@pytest.mark.usefixtures("quay")
def test_rules_of_spdx_find_faults(reader, place, part, change, fault):
    document = json.loads(b"".join(reader.get(place + "export/spdx.json").streaming_content))
    (document if part is None else document[part][-1]).update(change)
    assert any(fault in line for line in spdx_faults(document)), spdx_faults(document)


def test_csv_export_escapes_formulas(quay, reader, place):
    bad = dock.package('=cmd|" /C calc"!A0', "1.0", kind="pypi")
    dock.carry(quay["new_api"], 1, bad)
    text = b"".join(reader.get(place + "export/packages.csv").streaming_content).decode()
    names = [row["name"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert '\'=cmd|" /C calc"!A0' in names


def test_export_of_unknown_packages_is_refused(quay, reader):
    image = quay["unscanned"].image
    answer = reader.get(f"/t/shop/r/shop/web/i/{image.digest}/export/findings.csv")
    assert answer.status_code == 404
    assert "are unknown" in answer.content.decode()
    assert Repository.objects.filter(name="shop/web").exists()


@pytest.mark.parametrize(
    ("address", "sort", "names"),
    [
        ("/images/?team=shop", "name", lambda page: [row.name for row in page.rows]),
        ("/t/shop/r/shop/jobs/?tab=tags", "name", lambda page: [row.name for row in page.rows]),
        ("{place}?tab=findings", "package", lambda page: [row.package.name for row in page.rows]),
        ("{place}?tab=packages", "name", lambda page: [row.name for row in page.rows]),
        ("{place}?tab=packages", "type", lambda page: [row.type for row in page.rows]),
        ("/teams/?", "name", lambda page: [row.slug for row in page.rows]),
    ],
)
def test_columns_sort_both_ways(reader, place, address, sort, names):
    address = address.format(place=place)
    rising, falling = (reader.get(f"{address}&sort={sign}{sort}") for sign in ("", "-"))
    assert names(rising.context["page"]) == sorted(names(rising.context["page"]))
    assert names(falling.context["page"]) == names(rising.context["page"])[::-1]
    assert 'aria-sort="ascending"' in rising.content.decode()
    assert 'aria-sort="descending"' in falling.content.decode()
    assert reader.get(f"{address}&sort=zzz").status_code == 400
