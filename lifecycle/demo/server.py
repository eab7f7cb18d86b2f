"""The API calls of each role account, and the waits for the workers."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from lifecycle.cli.client import Api, CommandFailed, Login, Unreachable
from lifecycle.demo.cast import Account
from lifecycle.demo.images import Product
from lifecycle.demo.telling import DemonstrationFailed, Teller

POLL_S: Final = 0.3
SEEN_WITHIN_S: Final = 60.0
SCANNED_WITHIN_S: Final = 300.0
JUDGED_WITHIN_S: Final = 120.0
PROMOTED_WITHIN_S: Final = 120.0
PLANNED_WITHIN_S: Final = 120.0
REBUILT_WITHIN_S: Final = 1200.0

Result = TypeVar("Result")


class Server:
    """Client of `/api/v1/` of this installation, for every role account."""

    def __init__(self, url: str, accounts: dict[str, Account], teller: Teller) -> None:
        self._apis = {name: Api(Login(url, account.api_token)) for name, account in accounts.items()}
        self._teller = teller
        self._repository_ids: dict[str, int] = {}

    def api(self, username: str) -> Api:
        """Return the API client of an account."""
        return self._apis[username]

    def repository_id(self, name: str) -> int:
        """Return the id of a repository by its name."""
        if name not in self._repository_ids:
            rows = self.api("dock-master").rows("repositories/", most=10_000)
            self._repository_ids |= {row["name"]: row["id"] for row in rows}
        return self._repository_ids[name]

    def put_recipe(self, product: Product) -> int:
        """Store the recipe of an image as its maintainer; return the revision."""
        context = {name: base64.b64encode(content).decode() for name, content in product.files.items()}
        body = {"containerfile": product.recipe, "context": context, "tag": product.tag}
        path = f"repositories/{self.repository_id(product.repository)}/recipe/"
        return int(self.api(product.keeper).put(path, body)["revision"])

    def await_image(self, digest: str, username: str) -> float:
        """Wait until a pushed digest is stored; return the waiting time in seconds."""
        return self._await(SEEN_WITHIN_S, lambda: self._image(digest, username), f"{digest[:19]} to be ingested")[1]

    def await_scan(self, digest: str, username: str) -> dict[str, Any]:
        """Wait until an image is scanned, and return the image; raises DemonstrationFailed."""

        def scanned() -> dict[str, Any] | None:
            image = self._image(digest, username)
            if image is not None and image["scan_problem"] and not image["scanned_at"]:
                raise DemonstrationFailed(f"{digest[:19]} could not be scanned: {image['scan_problem']}")
            return image if image is not None and image["scanned_at"] else None

        return self._await(SCANNED_WITHIN_S, scanned, f"{digest[:19]} to be scanned")[0]

    def findings(self, digest: str, username: str) -> list[dict[str, Any]]:
        """Return the current findings of an image."""
        findings: list[dict[str, Any]] = self.api(username).get(f"images/{digest}/findings/")["results"]
        return findings

    def promote(self, digest: str, repository: str, environment: str, *, tag: str, reason: str) -> dict[str, Any]:
        """Request, approve and run one promotion, each step with its role; return the succeeded promotion.

        Raises DemonstrationFailed.
        """
        promotion = self.request(digest, repository, environment, tag=tag, reason=reason)
        path = f"promotions/{promotion['id']}/"
        approver, deployer = self.api("shop-approver"), self.api("shop-deployer")

        def can_be_decided() -> dict[str, Any] | None:
            """Return the promotion when its other requirements are met.

            While packages are still being matched, an approval would lapse with new findings.
            """
            row = approver.get(path)
            others = [item for item in row["requirements"] if item["name"] != "approvals"]
            # Packages that no advisory can judge wait for the approval itself, which accepts them.
            waits = [item for item in others if not item["counts"].get("unjudged")]
            return row if all(item["status"] in {"satisfied", "not_applicable"} for item in waits) else None

        self._await(JUDGED_WITHIN_S, can_be_decided, f"the requirements for promoting {repository} to {environment}")
        approver.post(f"{path}approve/", {"reason": "Checked on the page of the image."})
        deployer.post(f"{path}execute/")

        def ended() -> dict[str, Any] | None:
            row = deployer.get(path)
            return None if row["state"] in {"executing", "verifying"} else row

        row = self._await(PROMOTED_WITHIN_S, ended, f"{repository} to be copied to {environment}")[0]
        if row["state"] != "succeeded":
            raise DemonstrationFailed(
                f"The promotion of {repository} to {environment} is {row['state']}. {row['failure']}"
            )
        return row

    def request(self, digest: str, repository: str, environment: str, *, tag: str, reason: str) -> dict[str, Any]:
        """Request one promotion as the developer."""
        body = {
            "digest": digest, "repository": repository, "environment": environment, "tag": tag, "reason": reason,
        }  # fmt: skip
        return self.api("shop-developer").post("promotions/", body)

    def await_plan(self, digest: str) -> dict[str, Any]:
        """Wait until a wave is planned for this new base, and return it with its jobs."""
        api = self.api("dock-master")

        def proposed() -> dict[str, Any] | None:
            for row in api.rows("rebuild-waves/", most=50, state="planned"):
                if row["new_digest"] == digest:
                    return row
            return None

        wave = self._await(PLANNED_WITHIN_S, proposed, "the plan of a rebuild wave")[0]
        return api.get(f"rebuild-waves/{wave['id']}/")

    def await_wave(self, wave_id: int, on_job: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Wait until a wave has finished, and return it; raises DemonstrationFailed unless it succeeded.

        `on_job` is called for each image that has finished.
        """
        api, reported = self.api("dock-master"), set[int]()

        def ended() -> dict[str, Any] | None:
            wave = api.get(f"rebuild-waves/{wave_id}/")
            for job in wave["jobs"]:
                if job["id"] not in reported and job["finished_at"]:
                    reported.add(job["id"])
                    on_job(job)
            return None if wave["state"] == "running" else wave

        wave = self._await(REBUILT_WITHIN_S, ended, f"wave {wave_id} to finish", every_s=1.0)[0]
        if wave["state"] != "succeeded":
            problems = [f"    {job['repository']}: {job['problem']}" for job in wave["jobs"] if job["problem"]]
            raise DemonstrationFailed("\n".join([f"Wave {wave_id} is {wave['state']}.", *problems]))
        return wave

    def tidy(self) -> None:
        """Remove the watches, cancel the waves and withdraw the requests of an earlier run."""
        captain, master = self.api("captain"), self.api("dock-master")
        base = f"repositories/{self.repository_id('base/debian')}/watches/"
        for watch in list(master.rows(base, most=100)):
            master.delete(f"{base}{watch['id']}/")
        for state in ("planned", "running"):
            for wave in list(master.rows("rebuild-waves/", most=100, state=state)):
                if wave["base"].startswith("base/"):
                    master.post(f"rebuild-waves/{wave['id']}/cancel/")
        for state in ("open", "ready"):
            for row in list(captain.rows("promotions/", most=1000, state=state)):
                if row["requested_by"] == "shop-developer":
                    captain.post(f"promotions/{row['id']}/withdraw/", {"reason": "The demonstration starts again."})

    def _image(self, digest: str, username: str) -> dict[str, Any] | None:
        try:
            return self.api(username).get(f"images/{digest}/")
        except CommandFailed as error:
            if error.status == 404:
                return None
            raise

    def _await(
        self, timeout_s: float, condition: Callable[[], Result | None], what: str, *, every_s: float = POLL_S
    ) -> tuple[Result, float]:
        """Poll `condition` until it returns a result; return (result, waiting time in seconds).

        Raises DemonstrationFailed after `timeout_s`.
        """
        started = time.monotonic()
        while True:
            self._teller.check()
            try:
                result = condition()
            except Unreachable:  # a service that restarts does not end the demonstration
                result = None
            waited = time.monotonic() - started
            if result is not None:
                return result, waited
            if waited > timeout_s:
                raise DemonstrationFailed(
                    f"Waited {timeout_s:.0f} s for {what}. Check the services with `make status` and `make logs`."
                )
            time.sleep(every_s)
