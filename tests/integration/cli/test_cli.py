"""The command line against the real application and database. Most tests use no socket."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from types import SimpleNamespace

import httpx
import pytest

from accounts import tokens
from accounts.models import ApiToken
from lifecycle.cli import client
from lifecycle.cli.main import main
from lifecycle.jobs.models import Job
from lifecycle.promotion import services as promotions
from lifecycle.promotion.models import PromotionRequest
from lifecycle.rebuild import services as waves
from lifecycle.rebuild.models import BuilderPermit, RebuildJob, Recipe
from tests.factories import dock as rows
from tests.spdx import spdx_faults

pytestmark = pytest.mark.django_db
ABSENT = "sha256:" + "e" * 64


def test_login_is_checked_and_stored_readable_by_owner_only(dock, run, monkeypatch):
    assert run(None, "auth", "status")[0] == client.EXIT_NOT_AUTHENTICATED
    text = tokens.create_token(dock.requester, kind="pat", name="cli")[1]
    monkeypatch.setattr("sys.stdin", io.StringIO("gdk_pat_wrong\n"))
    assert run(None, "auth", "login", "--url", "http://localhost")[0] == client.EXIT_NOT_AUTHENTICATED
    assert not client.login_file().exists()
    monkeypatch.setattr("sys.stdin", io.StringIO(text + "\n"))
    code, out, err = run(None, "auth", "login", "--url", "http://localhost/")
    assert (code, out) == (0, "")
    assert text not in err
    assert stat.S_IMODE(client.login_file().stat().st_mode) == 0o600
    assert "requester" in err
    who = json.loads(run(None, "auth", "status", "--json")[1])
    assert (who["url"], who["signed_in"], who["username"]) == ("http://localhost", True, "requester")
    shown = run(None, "auth", "status")[1]
    assert "requester (person)" in shown
    assert "shop (creator)" in shown
    ApiToken.objects.update(revoked_at="2026-01-01T00:00Z")
    assert run(None, "auth", "status")[0] == client.EXIT_NOT_AUTHENTICATED


@pytest.mark.parametrize("url", ["http://dock.example", "dock.example", "ftp://localhost", "https://me@dock.example"])
def test_login_refuses_unsafe_addresses(url, run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("gdk_pat_x\n"))
    assert run(None, "auth", "login", "--url", url)[0] == client.EXIT_USAGE


def test_images_are_listed_and_shown(dock, run):
    code, out, _ = run(dock.requester, "image", "list")
    assert code == 0
    heading, row = out.splitlines()
    assert heading.split("  ")[0] == "NAME"
    assert row.startswith("shop/api:1.0  sha256:aaaaaaaaaaaa  linux/amd64  ")
    assert row.endswith("  1         none")  # packages, findings
    assert dock.image.digest in run(dock.requester, "image", "list", "--full")[1]
    tagged = ("image", "list", "--repository", "shop/api", "--json", "--tag")
    assert json.loads(run(dock.requester, *tagged, "1.0")[1])["digest"] == dock.image.digest
    assert run(dock.requester, *tagged, "2.0")[:2] == (0, "")
    shown = json.loads(run(dock.requester, "image", "show", dock.image.digest, "--json")[1])
    assert (shown["digest"], shown["open_findings"]) == (dock.image.digest, [])
    assert run(dock.requester, "image", "show", ABSENT)[0] == client.EXIT_ERROR
    assert run(dock.requester, "image", "show", "../jobs")[0] == client.EXIT_USAGE
    assert run(dock.requester, "image", "show", "sha256:x")[0] == client.EXIT_USAGE
    for name in ("shop/api:1.0", f"shop/api@{dock.image.digest}"):
        assert dock.image.digest in run(dock.requester, "image", "show", name)[1]
    assert run(dock.requester, "image", "show", "shop/api")[0] == client.EXIT_ERROR  # no tag latest
    assert run(dock.outsider, "image", "show", "shop/api:1.0")[0] == client.EXIT_ERROR
    assert run(dock.outsider, "image", "list", "--json")[:2] == (0, "")


def test_artifacts_are_listed_only_on_request(dock, run):
    artifact = rows.image("context", layers=1)
    type(artifact).objects.filter(pk=artifact.pk).update(kind="artifact")
    rows.push(dock.repository, artifact, "context")
    assert "context" not in run(dock.requester, "image", "list", "--limit", "1")[1]
    assert "shop/api:1.0" in run(dock.requester, "image", "list", "--limit", "1")[1]
    assert "shop/api:context" in run(dock.requester, "image", "list", "--all")[1]


def test_findings_are_sorted_by_severity_with_their_cve(dock, run, capsys):
    image = json.loads(run(dock.requester, "image", "show", "shop/api:1.0", "--json")[1])
    del image["open_findings"]
    found = [
        {"purl": "pkg:deb/debian/openssl@3.0", "advisory": advisory, "aliases": aliases, "severity": severity,
         "fixed_version": fixed, "state": "open"}
        for advisory, aliases, severity, fixed in (
            ("CVE-2026-2", [], "low", "3.1"),
            ("DEB-1", [], "critical", ""),
            ("PYSEC-9", ["GHSA-x", "CVE-2026-1"], "critical", "3.1"),
        )
    ]  # fmt: skip
    answers = httpx.MockTransport(
        lambda request: httpx.Response(200, json={"results": found} if "findings" in request.url.path else image)
    )
    assert main(["image", "show", dock.image.digest], transport=answers) == 0
    out = capsys.readouterr().out
    rows_shown = [line.split("  ") for line in out[out.index("SEVERITY") :].splitlines()[1:]]
    assert [[cell.strip() for cell in row if cell.strip()][:2] for row in rows_shown] == [
        ["critical", "CVE-2026-1"], ["critical", "DEB-1"], ["low", "CVE-2026-2"]
    ]  # fmt: skip
    assert ["no fix available" in " ".join(row) for row in rows_shown] == [False, True, False]
    assert main(["image", "show", dock.image.digest, "--json"], transport=answers) == 0
    shown = json.loads(capsys.readouterr().out)["open_findings"]
    assert [finding["advisory"] for finding in shown] == ["PYSEC-9", "DEB-1", "CVE-2026-2"]


def test_metadata_is_set_listed_and_removed_by_name(dock, run):
    digest = dock.image.digest
    rows.push(dock.repository, dock.image, "1.0", dock.owner)
    assert run(dock.owner, "metadata", "set", "shop/api", "owner", "kim")[:2] == (0, "owner = kim\n")
    assert run(None, "metadata", "set", "shop/api:1.0", "size", "3.0", "--type", "number")[1] == "size = 3\n"
    out = run(None, "metadata", "list", f"shop/api@{digest}")[1]
    assert [line.split()[:4] for line in out.splitlines()[1:]] == [
        ["owner", "kim", "text", "repository"],
        ["size", "3", "number", digest[:19]],
    ]
    alone = [json.loads(line) for line in run(None, "metadata", "list", "shop/api", "--json")[1].splitlines()]
    assert [(row["key"], row["digest"]) for row in alone] == [("owner", None)]
    code, _, err = run(None, "metadata", "set", "shop/api", "size", "big", "--type", "number")
    assert (code, "Enter a number" in err) == (1, True)
    assert run(None, "metadata", "remove", "shop/api:1.0", "size")[0] == 0
    assert run(None, "metadata", "remove", "shop/api:1.0", "size")[0] == 1
    assert run(None, "metadata", "set", digest, "owner", "kim")[0] == client.EXIT_USAGE
    assert run(None, "metadata", "list", "shop/none")[0] == client.EXIT_ERROR
    assert run(dock.requester, "metadata", "set", "shop/api", "owner", "lee")[0] == client.EXIT_ERROR
    assert run(dock.outsider, "metadata", "list", "shop/api")[0] == client.EXIT_ERROR
    assert json.loads(run(dock.requester, "metadata", "list", "shop/api", "--json")[1])["value"] == "kim"


def test_image_is_exported_to_a_file_or_standard_output(dock, run, tmp_path):
    rows.push(dock.repository, dock.image, "1.0", dock.owner)
    rows.carry(dock.image, 0, rows.package("openssl", "3.0"))
    run(dock.owner, "metadata", "set", "shop/api", "owner", "kim")
    target = tmp_path / "bom.json"
    assert run(None, "image", "export", "shop/api:1.0", "--format", "spdx", "--output", target)[:2] == (0, "")
    document = json.loads(target.read_text())
    assert spdx_faults(document) == []
    comments = [note["comment"] for note in document["packages"][0]["annotations"]]
    assert "gravingdock:repository:owner=kim" in comments
    assert json.loads(run(None, "image", "export", dock.image.digest)[1])["bomFormat"] == "CycloneDX"
    assert "openssl" in run(None, "image", "export", "shop/api:1.0", "--format", "packages-csv")[1]
    rows.push(dock.repository, rows.image("unscanned"), "2.0", dock.owner)
    code, out, err = run(None, "image", "export", "shop/api:2.0", "--output", target)
    assert (code, out, "are unknown" in err) == (1, "", True)
    assert json.loads(target.read_text()) == document
    assert run(dock.outsider, "image", "export", dock.image.digest)[0] == client.EXIT_ERROR


def test_repositories_are_moved_to_another_team(dock, run):
    web = rows.team("web")
    admin = rows.user("admin", "owner", of=web)
    rows.user("admin", "owner", of=dock.team)
    other = rows.repository("shop/other", dock.team)
    assert run(admin, "team", "move", "shop", "--to", "web")[0] == client.EXIT_USAGE
    assert run(None, "team", "move", "shop", "shop/other", "--to", "web")[:2] == (0, "shop/other\n")
    other.refresh_from_db()
    assert other.team == web
    assert run(dock.requester, "team", "move", "shop", "--all", "--to", "web")[0] == client.EXIT_ERROR


def test_version_and_help_need_no_login(run, tmp_path):
    code, out, _ = run(None, "--version")
    assert (code, out.split()[0], out.split()[1][0].isdigit()) == (0, "gravingdock", True)
    code, out, _ = run(None, "--help")
    assert code == 0
    for area in ("auth", "image", "promotion", "rebuild", "completion"):
        assert f"\n    {area}" in out
        assert f"{area}  {area}" not in out
    assert "Exit codes" in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(run, shell):
    code, out, _ = run(None, "completion", shell)
    assert code == 0
    for word in ("image", "promotion", "withdraw", "execute", "--repository" if shell != "fish" else "-l repository"):
        assert word in out
    assert run(None, "completion", "tcsh")[0] == client.EXIT_USAGE


def complete_in_bash(script, *words):
    """Return what bash offers for the last of `words`."""
    line = f'source /dev/stdin; COMP_WORDS=({" ".join(words)} ""); COMP_CWORD={len(words)}; _gravingdock;' \
           ' echo "${COMPREPLY[@]}"'  # fmt: skip
    done = subprocess.run(["bash", "-c", line], input=script, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_completion_works_in_bash(run):
    script = run(None, "completion", "bash")[1]
    assert {"auth", "image", "promotion", "rebuild"} <= set(complete_in_bash(script, "gravingdock"))
    assert {"list", "show"} <= set(complete_in_bash(script, "gravingdock", "image"))
    assert {"--repository", "--tag", "--json"} <= set(complete_in_bash(script, "gravingdock", "image", "list"))
    assert "--wait" in complete_in_bash(script, "gravingdock", "promotion", "execute", "7")


def test_promotion_is_approved_then_executed(dock, run, request_):
    number = request_.pk
    code, out, err = run(dock.requester, "promotion", "approve", number)
    assert (code, out) == (client.EXIT_ERROR, "")
    assert err.strip()
    approved = json.loads(run(dock.approver, "promotion", "approve", number, "--reason", "seen", "--json")[1])
    assert approved["state"] == "ready"
    assert run(dock.deployer, "promotion", "execute", number, "--wait", "--timeout", "1")[0] == client.EXIT_TIMED_OUT
    assert "executing" in run(dock.requester, "promotion", "show", number)[1]
    listed = run(dock.requester, "promotion", "list", "--state", "executing", "--json")[1].splitlines()
    assert [json.loads(line)["id"] for line in listed] == [number]
    assert run(dock.requester, "promotion", "list", "--state", "open", "--json")[1] == ""


def test_requester_requests_and_withdraws_promotion(dock, run):
    words = ("promotion", "request", dock.image.digest, "--repository", "shop/api", "--environment", "staging")
    assert run(dock.requester, *words)[0] == client.EXIT_USAGE  # no reason
    dev_words = (*words[:-1], "dev", "--reason", "try", "--json")
    made = json.loads(run(dock.requester, *dev_words)[1])
    assert (made["digest"], made["environment"]) == (dock.image.digest, "dev")
    by_tag = ("promotion", "request", "shop/api:9", *dev_words[3:])
    assert run(dock.requester, *by_tag)[0] == client.EXIT_ERROR  # no such tag
    assert run(dock.approver, "promotion", "withdraw", made["id"])[0] == client.EXIT_ERROR
    assert run(dock.requester, "promotion", "withdraw", made["id"])[0] == 0


def test_request_waits_until_it_is_decided_and_ran(dock, run, monkeypatch):
    def one():
        return PromotionRequest.objects.latest("pk")

    acts = iter([
        lambda: promotions.reject(one().pk, actor=dock.approver, reason="not now"),
        lambda: promotions.execute(one().pk, actor=dock.deployer),
        lambda: promotions.verify(one()),
        lambda: promotions.succeed(one()),
    ])  # fmt: skip
    monkeypatch.setattr("lifecycle.cli.waiting.time.sleep", lambda seconds: next(acts)())
    words = ("promotion", "request", dock.image.digest, "--repository", "shop/api", "--environment", "dev", "--wait")
    code, out, err = run(dock.requester, *words, "--reason", "try")
    assert (code, "rejected" in out, "The promotion is rejected." in err) == (client.EXIT_ERROR, True, True)
    code, out, _ = run(dock.requester, *words, "--reason", "again")
    assert (code, "succeeded" in out, next(acts, None)) == (0, True, None)


def test_list_follows_pages_up_to_the_limit(dock, run, request_, monkeypatch):
    other = rows.image("other")
    rows.push(dock.repository, other, "2.0")
    words = ("promotion", "request", other.digest, "--repository", "shop/api", "--environment", "dev")
    assert run(dock.requester, *words, "--reason", "try")[0] == 0
    monkeypatch.setattr(client, "PAGE", 1)
    assert len(run(dock.requester, "promotion", "list", "--json")[1].splitlines()) == 2
    assert len(run(dock.requester, "promotion", "list", "--json", "--limit", "1")[1].splitlines()) == 1


def test_policy_refusal_has_own_exit_code_and_prints_reasons(run, monkeypatch, capsys, tmp_path):
    config_folder = tmp_path / "gravingdock"
    config_folder.mkdir()
    (config_folder / "login.json").write_text('{"url": "http://localhost", "token": "gdk_pat_x"}')
    body = {"code": "policy_blocked", "detail": "No.", "details": {"reasons": ["Not \x1b[2Jscanned."]}}
    answers = httpx.MockTransport(lambda _: httpx.Response(422, json=body))
    assert main(["promotion", "execute", "1"], transport=answers) == client.EXIT_POLICY
    assert capsys.readouterr().err == "No.\n  Not \N{REPLACEMENT CHARACTER}[2Jscanned.\n"


def test_waiting_for_promotion_survives_server_restart(monkeypatch, capsys, tmp_path, run):
    (tmp_path / "gravingdock").mkdir()
    (tmp_path / "gravingdock" / "login.json").write_text('{"url": "http://localhost", "token": "gdk_pat_x"}')
    states = iter(["executing", None, "succeeded"])  # None: no answer

    def handle(request):
        if (state := next(states)) is None:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, json={"id": 1, "state": state})

    monkeypatch.setattr("lifecycle.cli.waiting.time.sleep", lambda seconds: None)
    arguments = ["promotion", "execute", "1", "--wait"]
    assert main(arguments, transport=httpx.MockTransport(handle)) == 0
    output = capsys.readouterr()
    assert ("succeeded" in output.out, "Cannot reach" in output.err) == (True, True)


def test_timeout_and_refused_connection_have_different_exit_codes(run, tmp_path):
    (tmp_path / "gravingdock").mkdir()
    (tmp_path / "gravingdock" / "login.json").write_text('{"url": "http://localhost", "token": "gdk_pat_x"}')

    def fail(error):
        def handle(request):
            raise error("x", request=request)

        return httpx.MockTransport(handle)

    assert main(["image", "list"], transport=fail(httpx.ReadTimeout)) == client.EXIT_TIMED_OUT
    assert main(["image", "list"], transport=fail(httpx.ConnectError)) == client.EXIT_ERROR


@pytest.fixture
def stale_base():
    """A base image whose tag moved, one derived image, an owner and a viewer."""
    team = rows.team("shop")
    owner, viewer = rows.user("owner", "owner", of=team), rows.user("viewer", "viewer", of=team)
    old, new, web = rows.image("base old"), rows.image("base new"), rows.image("web")
    base, repository = rows.repository("shop/base", team), rows.repository("shop/web", team)
    rows.push(base, old, "12")
    rows.push(repository, web, "latest")
    Recipe.objects.create(repository=repository, revision=1, containerfile="FROM scratch", author=owner)
    rows.derive(old, web)
    rows.push(base, new, "12")
    return SimpleNamespace(owner=owner, viewer=viewer, new=new)


def test_plan_is_printed_and_starts_nothing(stale_base, run):
    code, out, err = run(stale_base.owner, "rebuild", "plan", "shop/base:12", "--json")
    wave = json.loads(out)
    assert (code, wave["state"], [job["repository"] for job in wave["jobs"]], err) == (0, "planned", ["shop/web"], "")
    assert "shop/web" in run(stale_base.owner, "rebuild", "show", f"W-{wave['id']}")[1]
    assert json.loads(run(stale_base.viewer, "rebuild", "list", "--json")[1])["id"] == wave["id"]
    assert run(stale_base.viewer, "rebuild", "plan", "shop/base:12")[0] == client.EXIT_ERROR
    assert run(stale_base.owner, "rebuild", "plan", "shop/none")[0] == client.EXIT_ERROR
    assert run(stale_base.owner, "rebuild", "show", "x")[0] == client.EXIT_USAGE
    assert not Job.objects.filter(kind="rebuild").exists()


def test_start_by_base_or_number_confirms_once(stale_base, run):
    code, out, err = run(stale_base.owner, "rebuild", "start", "shop/base:12", "--json")
    wave = json.loads(out)
    assert (code, wave["state"], err) == (0, "running", f"W-{wave['id']} confirmed.\n")
    again = json.loads(run(stale_base.owner, "rebuild", "start", f"W-{wave['id']}", "--json")[1])
    assert (again["id"], again["state"]) == (wave["id"], "running")
    assert Job.objects.filter(kind="rebuild").count() == 1
    assert run(stale_base.owner, "rebuild", "start", wave["id"], "--wait", "--timeout", "1")[0] == client.EXIT_TIMED_OUT


def test_owner_retries_failed_wave_and_cancels_it(stale_base, run):
    wave = json.loads(run(stale_base.owner, "rebuild", "start", "shop/base:12", "--json")[1])
    assert run(stale_base.owner, "rebuild", "retry", wave["id"])[0] == client.EXIT_ERROR  # it has not failed
    job = RebuildJob.objects.get()
    waves.begin(job.pk, node_id="sha256:0")
    waves.fail(job.pk, why="exit 1")
    again = json.loads(run(stale_base.owner, "rebuild", "retry", f"W-{wave['id']}", "--json")[1])
    assert (again["state"], [row["state"] for row in again["jobs"]]) == ("running", ["waiting"])
    assert run(stale_base.viewer, "rebuild", "cancel", wave["id"])[0] == client.EXIT_ERROR
    stopped = json.loads(run(stale_base.owner, "rebuild", "cancel", wave["id"], "--json")[1])
    assert (stopped["state"], [row["state"] for row in stopped["jobs"]]) == ("cancelled", ["cancelled"])


def test_viewer_cannot_start_wave(stale_base, run):
    wave = json.loads(run(stale_base.owner, "rebuild", "plan", "shop/base:12", "--json")[1])
    assert run(stale_base.viewer, "rebuild", "start", wave["id"])[0] == client.EXIT_ERROR
    assert not Job.objects.filter(kind="rebuild").exists()
    assert run(stale_base.owner, "rebuild", "start", wave["id"])[0] == 0


@pytest.mark.parametrize(("end", "expected"), [("unchanged", 0), ("failed", client.EXIT_ERROR)])
def test_waiting_ends_with_the_wave_and_prints_its_result(stale_base, run, monkeypatch, end, expected):
    monkeypatch.setattr("lifecycle.cli.waiting.POLL_S", 0)

    def work(seconds):
        job = RebuildJob.objects.get()
        if job.state == "waiting":
            waves.begin(job.pk, node_id="sha256:0")
        elif end == "failed":
            waves.fail(job.pk, why="exit 1")
        else:
            waves.unchanged(job.pk, reason="No base of it changed.")

    monkeypatch.setattr("lifecycle.cli.waiting.time.sleep", work)
    code, _, err = run(stale_base.owner, "rebuild", "start", "shop/base:12", "--wait")
    assert (code, "shop/web: building" in err, f"shop/web: {end}" in err) == (expected, True, True)


def test_waiting_for_wave_survives_server_restart(stale_base, run, monkeypatch):
    broken = httpx.Response(500, json={"code": "internal_error", "detail": "Something broke on our side."})
    answers = iter([httpx.ConnectError("refused"), broken, httpx.ReadTimeout("slow")])
    send = httpx.Client.request

    def request(self, method, path, **more):
        if RebuildJob.objects.filter(state="building").exists() and (answer := next(answers, None)) is not None:
            if isinstance(answer, httpx.Response):
                return answer
            raise answer
        return send(self, method, path, **more)

    def work(seconds):
        job = RebuildJob.objects.get()
        if job.state == "waiting":
            waves.begin(job.pk, node_id="sha256:0")
        elif next(iter_done, None) is None:
            waves.unchanged(job.pk, reason="No base of it changed.")

    iter_done = iter([1, 2])
    monkeypatch.setattr("httpx.Client.request", request)
    monkeypatch.setattr("lifecycle.cli.waiting.time.sleep", work)
    code, _, err = run(stale_base.owner, "rebuild", "start", "shop/base:12", "--wait")
    assert (code, "refused" in err, "shop/web: unchanged" in err) == (0, True, True)


@pytest.mark.django_db(transaction=True)
def test_commands_work_over_a_real_socket(  # noqa: PLR0917 -- fixtures
    live_server, dock, request_, stale_base, tmp_path, monkeypatch, capsys
):  # fmt: skip
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def run(user, *words):
        text = tokens.create_token(user, kind="pat", name="cli")[1]
        monkeypatch.setattr("sys.stdin", io.StringIO(text + "\n"))
        assert main(["auth", "login", "--url", live_server.url]) == 0
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, capsys.readouterr().out

    assert dock.image.digest in run(dock.requester, "image", "show", dock.image.digest)[1]
    other = rows.image("other")
    rows.push(dock.repository, other, "2.0")
    BuilderPermit.objects.create(team=dock.team, turned_on_by=dock.owner)
    made = ("promotion", "request", other.digest, "--repository", "shop/api", "--environment", "dev")
    assert run(dock.requester, *made, "--reason", "try", "--json")[0] == 0
    assert run(dock.approver, "promotion", "approve", request_.pk, "--json")[0] == 0
    assert run(dock.deployer, "promotion", "execute", request_.pk, "--json")[0] == 0
    assert run(dock.second, "promotion", "reject", request_.pk, "--reason", "late")[0] == client.EXIT_ERROR
    assert run(stale_base.owner, "rebuild", "plan", "shop/base:12", "--json")[0] == 0
    assert run(stale_base.owner, "rebuild", "start", "shop/base:12")[0] == 0


@pytest.mark.django_db(transaction=True)
def test_image_list_works_over_a_real_socket(live_server, dock, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    text = tokens.create_token(dock.requester, kind="pat", name="cli")[1]
    client.save_login(client.Login(live_server.url, text))
    assert main(["image", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == dock.image.digest


@pytest.mark.django_db(transaction=True)
def test_closed_output_pipe_causes_no_traceback(live_server, dock, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    client.save_login(client.Login(live_server.url, tokens.create_token(dock.requester, kind="pat", name="cli")[1]))
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "lifecycle.cli", "image", "list"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (client.EXIT_ERROR, "")


def test_environment_is_listed_shown_and_set(dock, run):
    out = run(dock.requester, "environment", "list")[1]
    assert "shop/staging" in out
    code, out, _ = run(dock.owner, "environment", "set", "shop/staging", "--soak", "24h", "--rule",
                       "leads=1:people:approver,second", "--allow", "committer", "--production", "yes")  # fmt: skip
    assert code == 0
    assert "leads: 1 of approver, second" in out
    shown = json.loads(run(dock.requester, "environment", "show", "shop/staging", "--json")[1])
    assert (shown["soak_s"], shown["is_production"], shown["excludes_committer"]) == (86_400, True, False)
    assert run(dock.owner, "environment", "set", "shop/staging", "--approvals", "9")[0] == client.EXIT_POLICY
    assert run(dock.requester, "environment", "set", "shop/staging", "--approvals", "1")[0] == client.EXIT_ERROR
    assert run(dock.owner, "environment", "set", "shop/staging")[0] == client.EXIT_USAGE
    assert run(dock.owner, "environment", "set", "shop/staging", "--rule", "x")[0] == client.EXIT_USAGE
    assert run(dock.owner, "environment", "show", "shop/nowhere")[0] == client.EXIT_ERROR
