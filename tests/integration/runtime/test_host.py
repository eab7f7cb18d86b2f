"""The reporter of one host, `deploy/agent/host.py`, against Podman's API socket, by itself and with the server."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from accounts import tokens
from config.embedded import ports
from lifecycle.admission import certificates
from lifecycle.inventory.models import Reporter, RunningContainer, RunningImage, RuntimeReport
from tests.factories import dock as rows
from tests.factories.running import cluster, work
from tests.listening import JUNK, NO_ANSWER, Listener
from tests.podman import IMAGE, Podman, python_of_hosts
from tests.reporters import HOST, as_module


@pytest.fixture(scope="module")
def engine() -> Iterator[Podman]:
    # Podman takes no path of more than 50 characters, and the folders of parallel test processes are longer.
    with tempfile.TemporaryDirectory(prefix="gdpod-", ignore_cleanup_errors=True) as home:
        podman = Podman(Path(home))
        yield podman
        podman.stop()


@pytest.fixture
def podman(engine: Podman) -> Iterator[Podman]:
    yield engine
    engine.ask("rm", "--force", "--all", "--time=0")


@pytest.fixture
def host() -> ModuleType:
    """The program as a module, new for each test."""
    return as_module(HOST)


class _Ended(Exception):
    """The last step of a test was done."""


def follow(host: ModuleType, socket_path: Path, url: str, *steps: Callable[[], Any]) -> list[float]:
    """Let the program follow an engine; a step is done instead of each pause. Returns the lengths of the pauses."""
    pauses: list[float] = []
    waiting = list(steps)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if not waiting:
            raise _Ended
        waiting.pop(0)()

    clock = host.time
    host.time = type("Clock", (), {"monotonic": staticmethod(clock.monotonic), "sleep": staticmethod(pause)})
    sender = host.Sender(url, "north", "secret-token", "host-1")
    with pytest.raises(_Ended):
        host.follow(str(socket_path), "host-1", sender, 20)
    return pauses


def names(report: dict[str, Any]) -> list[str]:
    return sorted(entry["name"] for entry in report["containers"])


def nothing() -> None:
    """Change nothing."""


def test_the_first_report_is_full_and_later_ones_say_what_changed(podman: Podman, host: ModuleType) -> None:
    first = podman.create("api", "--label=com.docker.compose.project=shop", "--label=com.docker.compose.service=web")
    host.HEARTBEAT_S = 0
    with Listener() as listener:
        follow(
            host, podman.socket, listener.url, nothing, lambda: podman.create("worker"), lambda: podman.remove("api")
        )
    assert [report["kind"] for report in listener.reports] == ["full", "heartbeat", "delta", "delta"]
    assert [report["sequence"] for report in listener.reports] == [1, 2, 3, 4]
    assert len({report["boot"] for report in listener.reports}) == 1
    assert len({report["report_id"] for report in listener.reports}) == 4
    assert [names(report) for report in listener.reports] == [["api"], [], ["worker"], []]
    assert listener.reports[3]["gone"] == [f"{first}/main/api"]
    headers = listener.sent[0][0]
    assert (headers["Authorization"], headers["Content-Encoding"]) == ("Bearer secret-token", "gzip")
    (entry,) = listener.reports[0]["containers"]
    image = json.loads(podman.ask("image", "inspect", IMAGE))[0]
    assert (entry["namespace"], entry["workload"]) == ("shop", {"kind": "Service", "name": "web"})
    assert (entry["image"], entry["image_id"], entry["state"]) == (IMAGE, f"sha256:{image['Id']}", "created")
    assert entry["image_ids"] == image["RepoDigests"]
    assert (entry["node"], entry["container_id"], entry["arch"]) == (
        "host-1",
        f"docker://{first}",
        image["Architecture"],
    )
    assert "topsecret" not in json.dumps(listener.reports)


def test_nothing_is_sent_while_nothing_changes(podman: Podman, host: ModuleType) -> None:
    podman.create("api")
    with Listener() as listener:
        follow(host, podman.socket, listener.url, nothing, nothing)
    assert [report["kind"] for report in listener.reports] == ["full"]


def test_a_new_start_is_a_new_boot(podman: Podman, host: ModuleType) -> None:
    podman.create("api")
    with Listener() as listener:
        follow(host, podman.socket, listener.url)
        follow(host, podman.socket, listener.url)
    first, second = listener.reports
    assert first["boot"] != second["boot"]
    assert [(report["kind"], report["sequence"]) for report in (first, second)] == [("full", 1), ("full", 1)]


def test_only_the_newest_state_is_kept_while_the_server_is_away(podman: Podman, host: ModuleType) -> None:
    podman.create("api")
    (port,) = ports.scratch(1)
    listener = Listener(port=port)

    def return_with_another() -> None:
        podman.remove("short")
        podman.create("late")
        listener.start()

    try:
        pauses = follow(
            host, podman.socket, listener.url, lambda: podman.create("short"), nothing, return_with_another, nothing
        )
    finally:
        listener.stop()
    assert pauses == [40, 80, 160, 20, 20]  # longer and longer, and back at once
    assert [(report["kind"], report["sequence"], names(report)) for report in listener.reports] == [
        ("full", 1, ["api", "late"])
    ]


def test_what_was_not_accepted_is_sent_again(podman: Podman, host: ModuleType) -> None:
    podman.create("api")
    with Listener(202, NO_ANSWER, 202) as listener:
        follow(host, podman.socket, listener.url, lambda: podman.create("worker"), nothing)
    assert [(report["kind"], report["sequence"], names(report)) for report in listener.reports] == [
        ("full", 1, ["api"]),
        ("delta", 2, ["worker"]),
        ("delta", 2, ["worker"]),
    ]


@pytest.mark.parametrize("refused", [409, 413, 503])
def test_a_refused_change_is_followed_by_a_full_report(podman: Podman, host: ModuleType, refused: int) -> None:
    podman.create("api")
    with Listener(202, refused) as listener:
        follow(host, podman.socket, listener.url, lambda: podman.create("worker"), nothing)
    assert [(report["kind"], names(report)) for report in listener.reports] == [
        ("full", ["api"]),
        ("delta", ["worker"]),
        ("full", ["api", "worker"]),
    ]
    # A gap means that the server counts further than we do.
    assert listener.reports[2]["sequence"] == (3 if refused == 409 else 2)


def test_an_answer_that_is_no_http_does_not_end_it(podman: Podman, host: ModuleType) -> None:
    podman.create("api")
    with Listener(JUNK, 202) as listener:
        follow(host, podman.socket, listener.url, nothing, nothing)
    assert [report["kind"] for report in listener.reports] == ["full", "full"]


def test_nothing_is_reported_while_the_engine_is_away(podman: Podman, host: ModuleType, tmp_path: Path) -> None:
    podman.create("api")
    link = tmp_path / "docker.sock"
    with Listener() as listener:
        follow(host, link, listener.url, lambda: link.symlink_to(podman.socket), nothing)
        assert [(report["kind"], names(report)) for report in listener.reports] == [("full", ["api"])]
        link.unlink()
        follow(host, link, listener.url, nothing)
        assert len(listener.reports) == 1  # no report that says that nothing runs


def test_an_engine_that_answers_nonsense_is_asked_again(host: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer() -> None:
            for content in (b"no HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n[null]"):
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(content)

        thread = threading.Thread(target=answer)
        thread.start()
        with Listener() as listener:
            assert follow(host, path, listener.url, nothing) == [20, 20]
        thread.join()
    assert not listener.reports


def test_a_redirect_gets_no_token_and_is_no_success(podman: Podman, host: ModuleType) -> None:
    podman.create("api")
    with Listener() as other, Listener(302, 302, location=f"{other.url}/elsewhere") as listener:
        pauses = follow(host, podman.socket, listener.url, nothing)
    assert (len(listener.reports), pauses) == (2, [40, 80])
    assert not other.gets
    assert not other.sent


def run_once(podman: Podman, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the program as hosts do: with the system's Python, which has no package of ours."""
    return subprocess.run(
        [python_of_hosts(), "-I", HOST, "--once"],
        env={"DOCKER_SOCKET": str(podman.socket), "GRAVINGDOCK_CLUSTER": "north", **settings},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_it_trusts_the_named_certificates_only_and_reads_its_token_from_a_file(podman: Podman, tmp_path: Path) -> None:
    podman.create("api")
    certificates.ensure(tmp_path, ["127.0.0.1"])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(
        tmp_path / certificates.FOLDER / certificates.CERTIFICATE, tmp_path / certificates.FOLDER / certificates.KEY
    )
    trusted, token = tmp_path / "ca.pem", tmp_path / "token"
    trusted.write_text(certificates.bundle(tmp_path))
    token.write_text("token-of-the-file\n")
    with Listener(tls=tls) as listener:
        settings = {"GRAVINGDOCK_URL": listener.url, "AGENT_TOKEN_FILE": str(token)}
        refused = run_once(podman, **settings)
        assert refused.returncode == 1
        assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr
        assert not listener.reports
        done = run_once(podman, **settings, GRAVINGDOCK_CA=str(trusted), REPORTER="edge-7")
    assert done.returncode == 0, done.stderr
    ((headers, report),) = listener.sent
    assert headers["Authorization"] == "Bearer token-of-the-file"
    assert (report["reporter"], report["kind"], names(report)) == ("edge-7", "full", ["api"])
    assert "token-of-the-file" not in done.stdout + done.stderr + refused.stderr


def test_it_says_which_setting_is_missing(podman: Podman) -> None:
    done = run_once(podman, GRAVINGDOCK_URL="http://127.0.0.1:1")
    assert (done.returncode, done.stderr.strip()) == (1, "Set AGENT_TOKEN.")


@pytest.mark.django_db(transaction=True)
def test_the_server_knows_what_runs_on_a_host(podman: Podman, host: ModuleType, live_server: Any) -> None:
    team = rows.team("shop")
    boss = rows.user("boss", "owner", of=team)
    cluster(team)
    listed = json.loads(podman.ask("image", "inspect", IMAGE))[0]["RepoDigests"][0]
    image = rows.image("one")
    image.digest = listed.partition("@")[2]
    image.save(update_fields=["digest"])
    rows.push(rows.repository("shop/web"), image, "1.0")
    token = tokens.create_token(boss, kind="pat", name="host")[1]
    sender = host.Sender(live_server.url, "north", token, "host-1")

    def tell(kind: str, gone: list[str]) -> None:
        report = sender.report(kind, host.containers(str(podman.socket), "host-1"), gone)
        assert sender.send(report) == 202
        work()

    waiting = podman.create("api")
    tell("full", [])
    row = RunningContainer.objects.get(until=None)
    assert (row.image, row.state, row.started_at, row.node) == (image, "waiting", None, "host-1")
    podman.run("worker")
    tell("delta", [])
    started = RunningContainer.objects.get(until=None, name="worker")
    assert (started.image, started.state, started.workload_name) == (image, "running", "worker")
    assert started.started_at is not None
    assert RunningImage.objects.filter(digest=image.digest, until=None, workload_name="worker").exists()
    podman.remove("worker")
    podman.remove("api")
    tell("delta", [f"{waiting}/main/api", started.key])
    assert not RunningContainer.objects.filter(until=None).exists()
    assert not RunningImage.objects.filter(until=None).exists()
    assert [report.refused_count for report in RuntimeReport.objects.all()] == [0, 0, 0]
    assert Reporter.objects.get().name == "host-1"
