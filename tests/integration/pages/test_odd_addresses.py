"""What nobody writes by hand in an address is a 400 or a 404 that says so, for whoever is signed in."""

from __future__ import annotations

import pytest
from django.test import Client

from tests.factories import dock

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "address",
    [
        "/images/?q=%00", "/images/?team=%00", "/t/shop/r/a%00b/", "/promotions/?state=%00", "/audit/?actor=%00",
        "/promotions/new/?repository=1&digest=%00", "/api/v1/images/?repository=%00", "/api/v1/images/?tag=%00",
        "/api/v1/promotions/?repository=%00", "/api/v1/promotions/?environment=%00", "/api/v1/rebuild-waves/?state=%00",
        "/api/v1/jobs/?kind=%00", "/api/v1/audit-events/?subject=%00", "/api/v1/images/?limit=" + "9" * 5000,
        "/api/v1/repositories/?cursor=%00",
    ],
)  # fmt: skip
def test_an_address_that_no_column_could_hold_is_refused(client: Client, address: str) -> None:
    client.force_login(dock.user("anna", "owner", of=dock.team("shop")))
    answer = client.get(address)
    assert answer.status_code == 400
    if address.startswith("/api/"):
        assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("address", ["/api/v1/rebuild-waves/{}/", "/api/v1/jobs/{}/", "/rebuilds/{}/", "/jobs/{}/"])
def test_a_number_too_long_for_any_row_is_not_here(client: Client, address: str) -> None:
    client.force_login(dock.user("anna", "owner", of=dock.team("shop")))
    assert client.get(address.format("9" * 5000)).status_code == 404
    assert client.get(address.format("9" * 30)).status_code == 404


def test_percent_signs_that_are_none_of_that_still_find_their_page(client: Client) -> None:
    client.force_login(dock.user("anna", "owner", of=dock.team("shop")))
    assert client.get("/images/?q=100%25").status_code == 200
