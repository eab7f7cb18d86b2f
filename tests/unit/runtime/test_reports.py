"""Reports and the output of other tools: what is read, and what is refused by its place."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from lifecycle.core.errors import LimitExceeded, Malformed
from lifecycle.runtime.formats import read_format
from lifecycle.runtime.reports import inflate, read_content, read_header
from lifecycle.runtime.skeletons import skeleton
from lifecycle.runtime.times import read_time
from lifecycle.runtime.types import CONTAINERS_MAX, Refused, Sent

HEX = "ab" * 32
INDEX = f"sha256:{HEX}"


def report(**more: Any) -> dict[str, Any]:
    return {
        "schema": "gravingdock.report.v1",
        "report_id": "r-1",
        "boot": "b-1",
        "sequence": 1,
        "kind": "full",
        "observed_at": "2026-11-30T12:00:00.123456789Z",
        "reporter": "agent",
        "containers": [],
    } | more


def entry(**more: Any) -> dict[str, Any]:
    return {
        "key": "u/main/app",
        "namespace": "shop",
        "workload": {"kind": "Deployment", "name": "api"},
        "kind": "main",
        "name": "app",
        "image": "registry.example.com/shop/api:v1",
        "image_id": f"docker-pullable://registry.example.com/shop/api@{INDEX}",
        "state": "running",
    } | more


def test_the_envelope_is_read() -> None:
    header = read_header(report())

    assert (header.report_id, header.boot, header.sequence, header.kind) == ("r-1", "b-1", 1, Sent.FULL)
    assert header.observed_at.isoformat() == "2026-11-30T12:00:00.123456+00:00"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "gravingdock.report.v2"),
        ("report_id", ""),
        ("boot", None),
        ("sequence", -1),
        ("sequence", True),
        ("kind", "partial"),
        ("observed_at", "yesterday"),
        ("reporter", "a\x00b"),
        ("containers", {}),
        ("specs", []),
    ],
)
def test_a_bad_envelope_is_refused_by_its_field(field: str, value: Any) -> None:
    with pytest.raises(Malformed) as refused:
        read_header(report(**{field: value}))

    assert refused.value.details["field"] == field


def test_too_many_containers_are_refused() -> None:
    assert read_header(report(containers=[{}] * CONTAINERS_MAX))
    with pytest.raises(LimitExceeded):
        read_header(report(containers=[{}] * (CONTAINERS_MAX + 1)))


def test_a_bad_entry_is_refused_by_its_pointer_and_the_rest_is_read() -> None:
    good = entry()
    bad = [entry(key="b", kind="sidecar"), entry(key="c", image=""), 7, entry(key="d", workload={"kind": 3}), entry()]

    content = read_content(report(containers=[good, *bad]))

    assert [container.key for container in content.containers] == ["u/main/app"]
    assert [each.pointer for each in content.refused] == [
        "/containers/1/kind",
        "/containers/2/image",
        "/containers/3",
        "/containers/4/workload/kind",
        "/containers/5/key",
    ]


@pytest.mark.parametrize(
    ("image_id", "digests"),
    [
        (f"registry.example.com/shop/api@{INDEX}", (INDEX,)),
        (f"docker-pullable://registry.example.com/shop/api@{INDEX}", (INDEX,)),
        (f"docker://{INDEX}", (INDEX,)),
        (HEX, (INDEX,)),
        ("", ()),
        ("registry.example.com/shop/api:v1", ()),
    ],
)
def test_the_image_id_of_each_runtime_is_a_digest_or_not_resolved(image_id: str, digests: tuple[str, ...]) -> None:
    (container,) = read_content(report(containers=[entry(image_id=image_id)])).containers

    assert container.digests == digests


def test_a_gzip_bomb_is_stopped_at_the_limit() -> None:
    assert inflate(gzip.compress(b"x" * 1000), limit=1000) == b"x" * 1000
    with pytest.raises(LimitExceeded):
        inflate(gzip.compress(b"x" * 10_000_000), limit=1000)
    with pytest.raises(Malformed):
        inflate(gzip.compress(b"x" * 1000)[:-4])
    with pytest.raises(Malformed):
        inflate(b"{}")


def test_values_of_specs_are_dropped_even_if_the_reporter_sent_them() -> None:
    spec = {
        "containers": [
            {
                "name": "app",
                "command": ["sh", "-c", "secret"],
                "args": ["--password=secret"],
                "env": [{"name": "A", "value": "secret"}, {"name": "B", "valueFrom": {"secretKeyRef": {"key": "k"}}}],
                "livenessProbe": {"exec": {"command": ["secret"]}, "httpGet": {"httpHeaders": [{"value": "secret"}]}},
                "securityContext": {"privileged": True},
            }
        ]
    }

    (kept,) = read_content(report(specs={HEX: spec})).specs.values()

    assert "secret" not in str(kept).replace("secretKeyRef", "")
    assert kept["containers"][0]["env"] == [
        {"name": "A", "value": {"set": True}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"key": "k"}}},
    ]
    assert kept["containers"][0]["securityContext"] == {"privileged": True}
    assert skeleton(kept) == kept


POD: dict[str, Any] = {
    "kind": "Pod",
    "metadata": {
        "uid": "u-1",
        "name": "api-7d9f-x1",
        "namespace": "shop",
        "labels": {"pod-template-hash": "7d9f"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "api-7d9f", "controller": True}],
    },
    "spec": {
        "nodeName": "n-1",
        "initContainers": [{"name": "wait", "image": "busybox"}],
        "containers": [{"name": "app", "image": "registry.example.com/shop/api:v1"}],
        "volumes": [{"name": "model", "image": {"reference": f"registry.example.com/shop/model@{INDEX}"}}],
    },
    "status": {
        "phase": "Running",
        "initContainerStatuses": [{"name": "wait", "state": {"terminated": {"startedAt": "2026-11-30T11:00:00Z"}}}],
        "containerStatuses": [
            {
                "name": "app",
                "image": "other.example.com/mirror:latest",
                "imageID": INDEX,
                "state": {"running": {"startedAt": "2026-11-30T11:01:00Z"}},
            }
        ],
    },
}


def test_pods_of_kubectl_are_read_with_the_name_from_the_spec() -> None:
    content = read_format({"kind": "List", "items": [POD, {"kind": "Pod"}]}, "kubernetes")

    assert [(each.key, each.state, each.image, each.digests) for each in content.containers] == [
        ("u-1/init/wait", "terminated", "busybox", ()),
        ("u-1/main/app", "running", "registry.example.com/shop/api:v1", (INDEX,)),
        ("u-1/volume/model", "running", f"registry.example.com/shop/model@{INDEX}", (INDEX,)),
    ]
    assert {(each.workload_kind, each.workload_name) for each in content.containers} == {("Deployment", "api")}
    assert content.refused == [Refused("/items/1", "This is no pod: it has no spec.")]


@pytest.mark.parametrize(
    ("owner", "workload"),
    [
        (None, ("Pod", "p")),
        ({"kind": "Job", "name": "nightly-29000000", "controller": True}, ("CronJob", "nightly")),
        ({"kind": "Job", "name": "once", "controller": True}, ("Job", "once")),
        ({"kind": "StatefulSet", "name": "db", "controller": True}, ("StatefulSet", "db")),
        ({"kind": "Node", "name": "n-1"}, ("Pod", "p")),
    ],
)
def test_the_workload_is_the_controller(owner: dict[str, Any] | None, workload: tuple[str, str]) -> None:
    meta = {"uid": "u", "name": "p", "ownerReferences": [owner] if owner else []}
    pod = {"metadata": meta, "spec": {"containers": [{"name": "a", "image": "b"}]}}

    (container,) = read_format([pod], "kubernetes").containers

    assert (container.workload_kind, container.workload_name) == workload


def test_containers_of_docker_bring_all_digests() -> None:
    config = f"sha256:{'cd' * 32}"
    inspected = {
        "Id": "c" * 64, "Name": "/web", "Image": config, "HostConfig": {},
        "Config": {"Image": "shop/api:v1", "Env": ["A=secret"], "Labels": {"com.docker.compose.service": "api"}},
        "State": {"Status": "created", "StartedAt": "0001-01-01T00:00:00Z"},
    }  # fmt: skip
    image = {"Id": config, "RepoDigests": [f"registry.example.com/shop/api@{INDEX}"], "Architecture": "arm64"}
    listed = {"Id": "c" * 64, "Names": ["/web"], "Image": "shop/api:v1", "ImageID": config, "State": "created"}

    for document in (
        [[listed], [inspected, image]],
        {"containers": [listed], "inspect": [inspected], "images": [image]},
    ):
        (container,) = read_format(document, "docker").containers
        assert container.digests == (INDEX, config)
        assert (container.state, container.arch, container.workload_name) == ("waiting", "arm64", "api")
    (bare,) = read_format([listed], "docker").containers
    assert (bare.name, bare.digests, bare.started_at) == ("web", (config,), None)


def test_tasks_of_ecs_without_a_digest_are_not_resolved() -> None:
    task = {
        "taskArn": "arn:aws:ecs:eu-1:1:task/prod/t1", "clusterArn": "arn:aws:ecs:eu-1:1:cluster/prod",
        "group": "service:web", "startedAt": 1764500000.5,
        "containers": [
            {"name": "web", "image": "registry.example.com/shop/api:v1", "imageDigest": INDEX, "lastStatus": "RUNNING"},
            {"name": "log", "image": "log:1", "lastStatus": "PENDING"},
        ],
    }  # fmt: skip

    content = read_format({"tasks": [task], "failures": []}, "ecs")

    assert [(each.name, each.digests, each.state) for each in content.containers] == [
        ("web", (INDEX,), "running"),
        ("log", (), "waiting"),
    ]
    assert content.containers[0].namespace == "prod"
    assert (content.containers[0].workload_kind, content.containers[0].workload_name) == ("Service", "web")


@pytest.mark.parametrize(
    ("name", "document"), [("kubernetes", {}), ("ecs", {"services": []}), ("docker", "x"), ("nomad", [])]
)
def test_another_document_is_refused_with_what_to_send(name: str, document: Any) -> None:
    with pytest.raises(Malformed):
        read_format(document, name)


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2021-04-13T20:58:00.746609046Z+2", "2021-04-13T20:58:00.746609+00:00"),
        ("2026-11-30T12:00:00+01:30", "2026-11-30T10:30:00+00:00"),
        ("2016-08-04T16:17:57.881799840+0000", "2016-08-04T16:17:57.881799+00:00"),
        (1764500000, "2025-11-30T10:53:20+00:00"),
    ],
)
def test_times_of_many_tools_are_read(text: Any, iso: str) -> None:
    moment = read_time(text)

    assert moment is not None
    assert moment.isoformat() == iso


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "", None, True, float("inf"), 1e300])
def test_what_is_no_time_is_none(text: Any) -> None:
    assert read_time(text) is None
