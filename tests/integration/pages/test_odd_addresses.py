"""Malformed addresses answer 400 or 404 with a message, signed in or not."""

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
def test_address_too_large_for_any_column_is_refused(client: Client, address: str) -> None:
    client.force_login(dock.user("anna", "owner", of=dock.team("shop")))
    answer = client.get(address)
    assert answer.status_code == 400
    if address.startswith("/api/"):
        assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("address", ["/api/v1/rebuild-waves/{}/", "/api/v1/jobs/{}/", "/rebuilds/{}/", "/jobs/{}/"])
def test_number_too_large_for_any_row_is_not_found(client: Client, address: str) -> None:
    client.force_login(dock.user("anna", "owner", of=dock.team("shop")))
    assert client.get(address.format("9" * 5000)).status_code == 404
    assert client.get(address.format("9" * 30)).status_code == 404


def test_other_percent_signs_in_address_still_find_the_page(client: Client) -> None:
    client.force_login(dock.user("anna", "owner", of=dock.team("shop")))
    assert client.get("/images/?q=100%25").status_code == 200
