"""The WSGI callable: addresses, bodies, answers and records."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from lifecycle.admission import bodies, recording, server, snapshot
from lifecycle.admission.constants import ANNOTATION, BODY_MAX_BYTES
from lifecycle.admission.recording import Recorder
from lifecycle.admission.server import Application
from tests.factories.reviews import HOST, SECRET, configuration, content, image, pod, review, send, sha

PATH = f"/admission/north/{SECRET}"


@pytest.fixture
def application(tmp_path):
    snapshot.write(tmp_path, content())
    return Application(tmp_path, "https://g.example")


def records(application):
    path = application.recorder.flush(now=1e12)
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path else []


def test_allowed_and_refused(application):
    assert send(application, review(pod(image("good")))) == ("200 OK", {"uid": "uid-1", "allowed": True})
    status, answer = send(application, review(pod(image("known"))))
    assert (status, answer["allowed"], answer["status"]["code"]) == ("200 OK", False, 403)
    key = answer["auditAnnotations"]["decision"]
    assert f"https://g.example/why/{key}/" in answer["status"]["message"]
    allowed, refused = records(application)[::-1]
    assert allowed["count"][:4] == [1, "prod", "Pod", "web-1"]
    assert allowed["images"] == [sha("good")]
    row = refused["decision"]
    assert row["judged"] == [sha("known")]
    assert {name: row[name] for name in ("key", "code", "result", "user_name", "address")} == {
        "key": key, "code": "not_promoted", "result": "refused", "user_name": "alice", "address": "10.0.0.1",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_only_post(application, method):
    assert send(application, b"", method=method)[0].startswith("405")


@pytest.mark.parametrize(
    "path",
    [
        "/admission/", "/admission/north", "/admission/north/", "/admission/north/wrong", f"/admission/south/{SECRET}",
        f"/admission/absent/{SECRET}", f"{PATH}/other", f"{PATH}/mutate/x", f"/admission//{SECRET}",
        "/admission/north/\udcff",
    ],
)  # fmt: skip
def test_wrong_address_is_not_found_with_equal_bytes(application, path):
    assert send(application, review(pod(image("good"))), path) == ("404 Not Found", "Not found.\n")
    assert records(application) == []


def test_bodies(application):
    assert send(application, b"{")[0].startswith("400")
    assert send(application, b"x", CONTENT_LENGTH=str(BODY_MAX_BYTES + 1))[0].startswith("413")
    assert send(application, b"x", CONTENT_LENGTH="9" * 30)[0].startswith("413")
    assert send(application, b"x", CONTENT_LENGTH="-1")[0].startswith("400")
    assert send(application, b"x", CONTENT_LENGTH="1e3")[0].startswith("400")
    body = json.dumps(review(pod(image("good")))).encode()
    chunked = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True, "wsgi.input": io.BytesIO(body)}
    assert send(application, b"", **chunked)[1]["allowed"] is True
    big = {**chunked, "wsgi.input": io.BytesIO(b" " * (BODY_MAX_BYTES + 1))}
    assert send(application, b"", **big)[0].startswith("413")
    assert send(application, b"", CONTENT_LENGTH="")[0].startswith("400")


def test_without_snapshot_nothing_is_answered(tmp_path):
    assert send(Application(tmp_path, "https://g.example"), review(pod(image("good"))))[0].startswith("503")


def test_dry_run_is_answered_and_not_recorded(application):
    assert send(application, review(pod(image("known")), dryRun=True))[1]["allowed"] is False
    assert records(application) == []


def test_off_records_nothing_and_warn_warns(application):
    assert send(application, review(pod(image("known")), namespace="off"))[1] == {"uid": "uid-1", "allowed": True}
    assert records(application) == []
    answer = send(application, review(pod(image("known")), namespace="lab"))[1]
    assert (answer["allowed"], len(answer["warnings"])) == (True, 2)
    assert "not_promoted" in answer["warnings"][0]
    observed = send(application, review(pod(image("known")), namespace="prod-observed"))[1]
    assert ("warnings" in observed, observed["allowed"]) == (False, True)
    assert [row["decision"]["result"] for row in records(application)] == ["would_refuse", "would_refuse"]


def test_breakglass_is_recorded_with_its_reason(application):
    given = pod(image("known"), annotations={ANNOTATION: "INC-7: shop is down"})
    assert send(application, review(given, userInfo={"username": "kim"}))[1]["allowed"] is True
    (row,) = records(application)
    assert (row["decision"]["result"], row["decision"]["breakglass"]) == ("broke_glass", "INC-7: shop is down")


def test_mutate_pins_tags_of_pods_only(application):
    given = pod(f"{HOST}/shop/api:good", f"{HOST}/shop/api:nope", image("bad"), "quay.io/x:1")
    given["spec"]["volumes"] = [{"name": "v", "image": {"reference": f"{HOST}/dev/api:good"}}]
    given["spec"]["containers"].append({"name": "known", "image": f"{HOST}/dev/api:known"})
    answer = send(application, review(given), f"{PATH}/mutate")[1]
    assert (answer["allowed"], answer["patchType"]) == (True, "JSONPatch")
    assert json.loads(base64.b64decode(answer["patch"])) == [
        {"op": "replace", "path": "/spec/containers/0/image", "value": f"{HOST}/shop/api:good@{sha('good')}"},
        {"op": "replace", "path": "/spec/volumes/0/image/reference", "value": f"{HOST}/dev/api:good@{sha('good')}"},
    ]
    deployed = {"spec": {"template": pod(f"{HOST}/shop/api:good")}}
    for other in (
        review(deployed, group="apps", kind="Deployment"),
        review(given, namespace="off"),
        review(given, namespace="unbound"),
        review(given, operation="UPDATE"),
        review(None),
    ):
        assert send(application, other, f"{PATH}/mutate")[1] == {"uid": "uid-1", "allowed": True}
    assert records(application) == []
    snapshot.write(application.folder, content(2, mutate=False))
    application.look()  # the cluster does not want it any more, and its webhook is still there
    assert send(application, review(given), f"{PATH}/mutate")[1] == {"uid": "uid-1", "allowed": True}


def test_many_equal_refusals_are_counted(application):
    for _ in range(150):
        send(application, review(pod(image("known"))))
    rows = records(application)
    assert len([row for row in rows if "decision" in row]) == 100
    assert [row["count"][-2:] for row in rows if "count" in row] == [["not_promoted", 50]]


def breakglass(name, namespace="prod", reason="INC-7: shop is down"):
    given = pod(image(name), annotations={ANNOTATION: reason})
    return review(given, namespace=namespace, userInfo={"username": "kim"})


def lines_of(folder):
    return [orjson.loads(line) for path in sorted((folder / "spool").glob("*.jsonl")) for line in path.open("rb")]


def test_rate_of_refusals_hides_no_breakglass(application):
    for namespace in ("prod-other", "prod"):
        for _ in range(150):
            send(application, review(pod(image("known")), namespace=namespace))
    for name in ("known", "known", "rejected"):
        assert send(application, breakglass(name))[1]["allowed"] is True
    records(application)
    rows = lines_of(application.folder)
    opened = [row["decision"] for row in rows if "times" in row.get("decision", ())]
    assert [(row["result"], row["digests"], row["times"]) for row in opened] == [
        ("broke_glass", [sha("known")], 2),
        ("broke_glass", [sha("rejected")], 1),
    ]
    refused = [row["decision"]["namespace"] for row in rows if row.get("decision", {}).get("result") == "refused"]
    assert (refused.count("prod"), refused.count("prod-other")) == (100, 100)


def test_digests_of_a_breakglass_are_complete(application):
    given = breakglass("known")
    given["request"]["object"]["spec"]["containers"] *= 40
    given["request"]["object"]["spec"]["containers"].append({"name": "last", "image": image("rejected")})
    send(application, given)
    (row,) = records(application)
    assert row["decision"]["digests"] == sorted([sha("known"), sha("rejected")])


def test_full_queue_drops_refusals_and_no_breakglass(application, monkeypatch):
    monkeypatch.setattr(recording, "QUEUE_MAX_BYTES", 2500)
    send(application, breakglass("known"))
    for _ in range(20):
        send(application, review(pod(image("known"))))
    assert send(application, breakglass("rejected", reason="x" * 250))[0].startswith("503")
    assert send(application, breakglass("known"))[1]["allowed"] is True  # the same one takes no more room
    records(application)
    rows = lines_of(application.folder)
    assert not any("dropped" in row for row in rows)  # refusals let nothing in: no decision is missing for them
    assert sum(row.get("dropped_rows", 0) for row in rows) + len([row for row in rows if "decision" in row]) == 21
    assert [row["decision"]["times"] for row in rows if "times" in row.get("decision", ())] == [2]
    assert send(application, breakglass("rejected", reason="x" * 250))[1]["allowed"] is True


def test_full_spool_drops_the_oldest_and_counts_them(tmp_path, monkeypatch):
    application = Application(tmp_path, "https://g.example")
    snapshot.write(tmp_path, content())
    application.look()
    send(application, breakglass("known"))
    debts = application.recorder.flush(now=1e12)
    monkeypatch.setattr(recording, "SPOOL_MAX_BYTES", debts.stat().st_size + 2500)
    names = []
    for _ in range(5):
        send(application, review(pod(image("known"))))
        names.append(application.recorder.flush(now=2e12 + 100 * len(names)).name)
    left = sorted(path.name for path in (tmp_path / "spool").iterdir())
    assert left[0] == debts.name
    assert left[1:] == names[1 - len(left) :]
    assert 1 < len(left) < 6
    send(application, review(pod(image("known"))))
    assert {"dropped": 1} in records(application) or any(
        b"dropped" in path.read_bytes() for path in (tmp_path / "spool").iterdir()
    )


def test_breakglass_waits_for_room_in_the_spool(application, monkeypatch):
    send(application, review(pod(image("known"))))
    before = application.recorder.flush(now=1e12)
    monkeypatch.setattr(recording, "SPOOL_MAX_BYTES", 100)
    for _ in range(2):
        send(application, breakglass("known"))
        assert application.recorder.flush(now=2e12) is None
    assert not before.exists()
    monkeypatch.undo()
    application.recorder.flush(now=3e12)
    assert [row["decision"]["times"] for row in lines_of(application.folder) if "decision" in row] == [2]


def test_many_decisions_are_written_in_pieces(application, monkeypatch):
    monkeypatch.setattr(recording, "FILE_MAX_BYTES", 2000)
    for _ in range(10):
        send(application, review(pod(image("known"))))
    assert len(records(application)) < 10
    files = list((application.folder / "spool").iterdir())
    assert max(path.stat().st_size for path in files) <= 2000
    assert len(lines_of(application.folder)) == 10


def test_workloads_of_one_cluster_leave_room_for_others(application, monkeypatch):
    monkeypatch.setattr(recording, "WORKLOADS_MAX", 3)
    for number in range(10):
        given = pod(image("good"))
        given["metadata"]["name"] = f"web-{number}"
        send(application, review(given))
    lines = records(application)
    named = [line["count"] for line in lines if line["count"][3]]
    assert sorted((row[3], row[-1]) for row in named) == [("web-0", 1), ("web-1", 1), ("web-2", 1)]
    together = [line for line in lines if not line["count"][3]]
    assert sum(line["count"][-1] for line in together) == 7
    # Each image of each workload stays known.
    known = {each for line in together for each in line["images"]}
    assert known == {recording.together_key("prod", f"web-{number}", sha("good")) for number in range(3, 10)}
    assert all(1 <= len(line["images"]) == line["count"][-1] for line in together)


def test_counts_beyond_what_fits_in_memory_are_counted_together(application, monkeypatch):
    monkeypatch.setattr(recording, "COUNTS_MAX", 1)
    monkeypatch.setattr(recording, "SHARDS", 1)
    for number in range(4):
        given = pod(image("good"))
        given["metadata"]["name"] = f"web-{number}"
        send(application, review(given))
    lines = records(application)
    assert [(line["count"][3], len(line["images"])) for line in lines] == [("web-0", 1), ("", 3)]


def test_a_workload_with_too_many_images_names_none(application, monkeypatch):
    monkeypatch.setattr(recording, "IMAGES_MAX", 0)
    send(application, review(pod(image("good"))))
    (line,) = records(application)
    assert (line["count"][-1], "images" in line) == (1, False)


def test_full_disk_loses_records_and_no_answer(tmp_path):
    recorder = Recorder(tmp_path / "absent" / "\0")
    snapshot.write(tmp_path, content())
    application = Application(tmp_path, "https://g.example")
    (tmp_path / "spool").write_text("a file where the folder should be")
    assert send(application, review(pod(image("known"))))[1]["allowed"] is False
    assert application.recorder.flush() is None
    assert recorder.flush() is None


class SlowBody(io.BytesIO):
    """A body that comes when `may_come` is set."""

    def __init__(self, content, may_come):
        super().__init__(content)
        self.may_come = may_come

    def read(self, size=-1):
        self.may_come.wait(20)
        return super().read(size)


@contextmanager
def slow_bodies(application, count, **environ):
    """Send reviews whose bodies do not come; gives their statuses, which are complete at the end."""
    body, may_come, found = json.dumps(review(pod(image("good")))).encode(), threading.Event(), []

    def work():
        more = environ | {"wsgi.input": SlowBody(body, may_come)}
        found.append(send(application, body, environ.get("PATH_INFO", PATH), **more)[0][:3])

    threads = [threading.Thread(target=work) for _ in range(count)]
    before = len(application._bodies._reading)
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(found) + len(application._bodies._reading) - before < count and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield found
    finally:
        may_come.set()
        for thread in threads:
            thread.join()


def test_slow_bodies_leave_threads_for_others(tmp_path, monkeypatch):
    changed = configuration()
    changed["clusters"]["south"]["secrets"] = [[hashlib.sha256(b"of south").hexdigest(), None]]
    snapshot.write(tmp_path, snapshot.build(1, changed, [], []))
    application = Application(tmp_path, "https://g.example", threads=16)
    with slow_bodies(application, 9) as found:
        assert (found, len(application._bodies._reading)) == (["429"] * 5, 4)
        monkeypatch.setattr(bodies, "SLOW_S", 0)
        started = time.monotonic()
        assert send(application, review(pod(image("good"))))[0].startswith("429")
        assert time.monotonic() - started < 0.15  # at once: what is on its way is slow
        assert send(application, review(pod(image("good"))), REMOTE_ADDR="10.0.0.2")[0] == "200 OK"
        assert send(application, review(pod(image("good"))), "/admission/south/of south")[0] == "200 OK"
        monkeypatch.undo()
        with slow_bodies(application, 8, REMOTE_ADDR="10.0.0.3") as others:
            assert others == ["429"] * 4
            assert send(application, review(pod(image("good"))), REMOTE_ADDR="10.0.0.4")[0].startswith("429")
            assert send(application, review(pod(image("good"))), "/admission/south/of south")[0] == "200 OK"
    assert sorted(found) == ["200"] * 4 + ["429"] * 5
    assert send(application, review(pod(image("good"))))[0] == "200 OK"


def test_burst_waits_for_a_place(application):
    """16 bodies of an address are read at once; the next one waits until one of them has come."""
    with ThreadPoolExecutor() as pool:
        with slow_bodies(application, 16) as found:
            assert found == []
            later = pool.submit(send, application, review(pod(image("good"))))
            assert wait([later], 0.05).not_done
        assert later.result()[0] == "200 OK"


def test_body_that_trickles_is_refused(application, monkeypatch):
    monkeypatch.setattr(server, "READ_S", -1)
    body = json.dumps(review(pod(image("good")))).encode()
    assert send(application, body + b" " * 200_000)[0].startswith("408")
    assert send(application, body)[0] == "200 OK"


def test_large_body_is_answered(application):
    body = json.dumps(review(pod(image("good")))).encode()
    assert send(application, body + b" " * 2_000_000)[1] == {"uid": "uid-1", "allowed": True}


def test_first_review_is_answered_from_the_newest_snapshot(tmp_path, monkeypatch):
    """A server loads the application long before it answers, and its thread starts with the first review."""
    application = Application(tmp_path, "https://g.example")
    monkeypatch.setattr(Application, "_start", lambda self: None)
    application._looked_at -= 3
    snapshot.write(tmp_path, content())
    assert send(application, review(pod(image("good"))))[1]["allowed"] is True
    snapshot.write(tmp_path, content(2, unbound="deny", mode="off"))
    application._looked_at -= 3
    assert send(application, review(pod(image("known"))))[1]["allowed"] is True


def test_answering_needs_no_django():
    code = (
        "import sys; import lifecycle.admission.server; "
        "print([name for name in ('django', 'structlog', 'httpx', 'psycopg2') if name in sys.modules])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
