"""The OpenAPI document explains every field, and its examples are valid. The page of the API needs no inline code."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from lifecycle.api.describing import FIELDS
from lifecycle.api.examples import EXAMPLES

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    result: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return result


def test_every_plain_field_has_a_description(document: dict[str, Any]) -> None:
    without = {
        f"{component}.{name}"
        for component, shape in document["components"]["schemas"].items()
        for name, field in shape.get("properties", {}).items()
        if "description" not in field and "$ref" not in str(field)
    }
    assert not without, "describe them in the serializer, or in FIELDS of lifecycle/api/describing.py"


def test_every_description_belongs_to_a_field(document: dict[str, Any]) -> None:
    names = {name for shape in document["components"]["schemas"].values() for name in shape.get("properties", {})}
    assert set(FIELDS) <= names


def test_every_operation_has_a_summary(document: dict[str, Any]) -> None:
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    assert all(0 < len(operation["summary"]) <= 130 for operation in operations)


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    bodies = {
        (method, path)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation.get("requestBody")
    }
    assert bodies <= set(EXAMPLES)


@pytest.mark.parametrize("key", EXAMPLES, ids=" ".join)
def test_example_is_valid(document: dict[str, Any], key: tuple[str, str]) -> None:
    method, path = key
    operation = document["paths"][path][method]
    body, answer = EXAMPLES[key]
    if body is not None:
        validate(document, operation["requestBody"]["content"]["application/json"], body)
    if answer is not None:
        (success,) = (code for code in operation["responses"] if code.startswith("2"))
        validate(document, operation["responses"][success]["content"]["application/json"], answer)


def validate(document: dict[str, Any], content: dict[str, Any], example: Any) -> None:
    assert content["example"] == example
    shape = {**content["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator(shape).validate(example)
    reference = content["schema"].get("$ref", "")
    if reference:  # an example names every field, and none that does not exist
        properties = document["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
        assert set(example) <= set(properties)


def test_page_lists_every_operation_and_has_no_inline_code(document: dict[str, Any], dock: Any) -> None:
    client = Client()
    client.force_login(dock.requester, backend="allauth.account.auth_backends.AuthenticationBackend")
    answer = client.get("/docs/api/")
    text = answer.content.decode()
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}</dt>" in text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", text)
    assert "unsafe" not in answer["Content-Security-Policy"]
    assert client.get("/about/").content.decode().count('href="/docs/api/"') == 2
    assert Client().get("/docs/api/")["Location"].startswith("/accounts/sign-in/")
