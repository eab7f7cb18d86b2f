"""Events of Falco and CloudEvents: the tie to a container, severities, and masked secrets."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from lifecycle.core.errors import Malformed
from lifecycle.core.image_names import parse_image_name
from lifecycle.core.masking import masked, masked_json
from lifecycle.runtime.cloud_events import read_cloud_events
from lifecycle.runtime.falco import fields_of, read_falco

DIGEST = f"sha256:{'ab' * 32}"


def test_an_event_of_falco_is_tied_by_all_that_it_says() -> None:
    event = read_falco(
        {
            "time": "2026-01-02T03:04:05.123456789Z", "rule": "Terminal shell in container", "priority": "CRITICAL",
            "output": "shell (cmdline=curl -H 'Authorization: Bearer abcdef123456')",
            "output_fields": {
                "container.id": "3a1b2c3d4e5f", "container.image.repository": "registry.example.com/team/app",
                "container.image.tag": "v1", "container.image.digest": DIGEST, "k8s.ns.name": "prod",
                "k8s.pod.name": "web-1", "proc.cmdline": "mysql --password=hunter2", "user.name": None,
            },
        }
    )  # fmt: skip

    assert (event.severity, event.digest, event.container_id) == ("critical", DIGEST, "3a1b2c3d4e5f")
    assert (event.namespace, event.pod, event.image) == ("prod", "web-1", "registry.example.com/team/app:v1")
    assert "abcdef123456" not in event.text
    assert event.fields["proc.cmdline"] == "mysql --password=***"
    assert "user.name" not in event.fields


@pytest.mark.parametrize(
    "fields", [None, {}, {"container.id": "host", "container.image.digest": "", "k8s.ns.name": "<NA>"}]
)
def test_an_event_without_a_container_is_tied_to_nothing(fields: Any) -> None:
    event = read_falco({"rule": "x", "output_fields": fields})

    assert (event.container_id, event.digest, event.namespace, event.pod) == ("", "", "", "")


def test_an_audit_event_is_tied_to_its_target() -> None:
    fields = {"ka.target.name": "web-1", "ka.target.resource": "pods", "ka.target.namespace": "prod"}
    event = read_falco({"rule": "Attach to pod", "source": "k8s_audit", "output_fields": fields})

    assert (event.namespace, event.pod, event.target) == ("prod", "web-1", "pods/web-1")


def test_cloud_events_are_read_in_three_forms() -> None:
    event = {
        "specversion": "1.0", "id": "1", "source": "/scanner", "type": "com.example.found",
        "subject": f"registry.example.com/app@{DIGEST}", "data": {"severity": "high", "message": "found"},
    }  # fmt: skip
    body = json.dumps(event).encode()
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/scanner",
        "ce-type": "com.example.found",
        "ce-subject": event["subject"],
    }

    (structured,) = read_cloud_events("application/cloudevents+json; charset=utf-8", {}, body)
    batch = read_cloud_events("application/cloudevents-batch+json", {}, b"[%s,%s]" % (body, body))
    (binary,) = read_cloud_events("application/json", headers, json.dumps(event["data"]).encode())

    assert structured.digest == DIGEST
    assert structured.severity == "high"
    assert batch == [structured, structured]
    assert binary == structured


def test_data_in_base64_is_read() -> None:
    data = base64.b64encode(json.dumps({"digest": DIGEST}).encode()).decode()
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data_base64": data}

    (read,) = read_cloud_events("application/cloudevents+json", {}, json.dumps(event).encode())

    assert read.digest == DIGEST


@pytest.mark.parametrize(
    ("event", "place"),
    [({"specversion": "0.3"}, "/1/specversion"), ({"specversion": "1.0", "id": ""}, "/1/id"), (7, "/1")],
)
def test_a_bad_cloud_event_is_refused_by_its_place(event: Any, place: str) -> None:
    good = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}

    with pytest.raises(Malformed, match=place):
        read_cloud_events("application/cloudevents-batch+json", {}, json.dumps([good, event]).encode())
    with pytest.raises(Malformed):
        read_cloud_events("application/json", {}, b"{}")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("mysql -u root --password hunter2x", "hunter2x"),
        ("PGPASSWORD=hunter2x psql", "hunter2x"),
        ('{"api_key": "hunter2x"}', "hunter2x"),
        ("https://bob:hunter2x@example.com/", "hunter2x"),
        ("Authorization: Basic aHVudGVyMng=", "aHVudGVyMng"),
        ("AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "abc"),
        ("mysql -u root -phunter2x db", "hunter2x"),
        ("/usr/bin/mysqldump -h db -phunter2x", "hunter2x"),
        ("curl -sSu bob:hunter2x https://example.com", "hunter2x"),
        ("sshpass -p hunter2x ssh host", "hunter2x"),
        ("redis-cli -h cache -a hunter2x ping", "hunter2x"),
        ('["redis-cli","-a","hunter2x"]', "hunter2x"),
        ("docker login -u bob -p hunter2x quay.io", "hunter2x"),
        ('{"token": ["a", "hunter2x"]}', "hunter2x"),
        ('{"auth": {"a": {"b": 1}, "c": "hunter2x"}}', "hunter2x"),
        ('{"password": "a\\"hunter2x"}', "hunter2x"),
        (r"{\"password\": \"hunter2x\"}", "hunter2x"),
        ('password="cut hunter2x', "hunter2x"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyeCJ9", "eyJzdWIiOi"),  # cut before its signature
        ("x-eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyeCJ9.abcdef", "abcdef"),
        ("export GITHUB_TOKEN=ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_"),
    ],
)
def test_secrets_are_masked(text: str, secret: str) -> None:
    assert secret not in masked(text)


def test_whatever_is_under_the_name_of_a_secret_is_masked() -> None:
    given = {"token": ["abc"], "password": 123, "auth": {"x": "abc"}, "dbPassword": "abc", "auth_on": True, "pwd": ""}

    shown = {"token": "***", "password": "***", "auth": "***", "dbPassword": "***", "auth_on": True, "pwd": ""}
    assert masked_json(given) == shown
    assert fields_of(given) == {name: value for name, value in shown.items() if value != ""}


@pytest.mark.parametrize(
    "unit",
    ["eyJ-eyJ-", "eyJaaaaaaaa.", "://a:", "token='a\"", "auth:[", 'auth:["', "curl -uuuu", "--a-a-a-pass "],
)
def test_the_time_of_masking_grows_with_the_length_only(unit: str) -> None:
    def best(length: int) -> float:
        text = ("auth " + unit * length)[:length]
        times = []
        for _ in range(3):
            start = time.perf_counter()
            masked(text)
            times.append(time.perf_counter() - start)
        return min(times)

    assert best(160_000) < 40 * best(16_000)  # 100 times, were it quadratic


def test_other_text_stays() -> None:
    assert masked("docker run -p 8080:80 nginx; mysql -p shop") == "docker run -p 8080:80 nginx; mysql -p shop"
    text = "Notice A shell was spawned (user=root container=97c9868ea832 cmdline=sh -c uptime image=alpine:3)"

    assert masked(text) == text
    assert masked_json({"password": "x", "a": [1, "sh -c uptime"]}) == {"password": "***", "a": [1, "sh -c uptime"]}


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/grafana/loki:3", "docker.io/grafana/loki:3"),
        ("localhost/app", "localhost/app:latest"),
        ("host:5000/team/app", "host:5000/team/app:latest"),
        (f"host:5000/team/app:v1@{DIGEST}", f"host:5000/team/app:v1@{DIGEST}"),
        (f"app@{DIGEST}", f"docker.io/library/app@{DIGEST}"),
    ],
)
def test_image_names_are_completed(text: str, whole: str) -> None:
    assert str(parse_image_name(text)) == whole
