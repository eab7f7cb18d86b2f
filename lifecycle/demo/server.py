"""The API as each role account uses it, and the waits for what workers do meanwhile."""

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
RENEWED_WITHIN_S: Final = 1200.0

Found = TypeVar("Found")


class Server:
    """`/api/v1/` of this installation, spoken by whoever does a step."""

    def __init__(self, url: str, accounts: dict[str, Account], teller: Teller) -> None:
        self._apis = {name: Api(Login(url, account.api_token)) for name, account in accounts.items()}
        self._teller = teller
        self._repository_ids: dict[str, int] = {}

    def api(self, username: str) -> Api:
        """Return the API as that account."""
        return self._apis[username]

    def repository_id(self, name: str) -> int:
        """Return the id of a repository by its name."""
        if name not in self._repository_ids:
            rows = self.api("dock-master").rows("repositories/", most=10_000)
            self._repository_ids |= {row["name"]: row["id"] for row in rows}
        return self._repository_ids[name]

    def put_recipe(self, product: Product) -> int:
        """Store how an image is built, as its keeper; return the revision."""
        context = {name: base64.b64encode(content).decode() for name, content in product.files.items()}
        body = {"containerfile": product.recipe, "context": context, "tag": product.tag}
        path = f"repositories/{self.repository_id(product.repository)}/recipe/"
        return int(self.api(product.keeper).put(path, body)["revision"])

    def await_image(self, digest: str, username: str) -> float:
        """Wait until a pushed digest is known; return the seconds."""
        return self._await(SEEN_WITHIN_S, lambda: self._image(digest, username), f"{digest[:19]} to be ingested")[1]

    def await_scan(self, digest: str, username: str) -> dict[str, Any]:
        """Wait until an image's packages are listed, and return the image; raises DemonstrationFailed."""

        def scanned() -> dict[str, Any] | None:
            image = self._image(digest, username)
            if image is not None and image["scan_problem"] and not image["scanned_at"]:
                raise DemonstrationFailed(f"{digest[:19]} could not be scanned: {image['scan_problem']}")
            return image if image is not None and image["scanned_at"] else None

        return self._await(SCANNED_WITHIN_S, scanned, f"{digest[:19]} to be scanned")[0]

    def findings(self, digest: str, username: str) -> list[dict[str, Any]]:
        """Return what is known against an image now."""
        found: list[dict[str, Any]] = self.api(username).get(f"images/{digest}/findings/")["results"]
        return found

    def promote(self, digest: str, repository: str, environment: str, *, tag: str, reason: str) -> dict[str, Any]:
        """Request, approve and carry out one promotion, each as its role; return it when it has succeeded."""
        promotion = self.request(digest, repository, environment, tag=tag, reason=reason)
        path = f"promotions/{promotion['id']}/"
        approver, deployer = self.api("shop-approver"), self.api("shop-deployer")

        def can_be_decided() -> dict[str, Any] | None:
            """What is not matched yet cannot be judged, and an approval of it would lapse with what is found."""
            row = approver.get(path)
            others = [item for item in row["requirements"] if item["name"] != "approvals"]
            return row if all(item["status"] in {"satisfied", "not_applicable"} for item in others) else None

        self._await(JUDGED_WITHIN_S, can_be_decided, f"the requirements of {repository} into {environment}")
        approver.post(f"{path}approve/", {"reason": "Seen on the image's page."})
        deployer.post(f"{path}execute/")

        def ended() -> dict[str, Any] | None:
            row = deployer.get(path)
            return None if row["state"] in {"executing", "verifying"} else row

        row = self._await(PROMOTED_WITHIN_S, ended, f"{repository} to be copied into {environment}")[0]
        if row["state"] != "succeeded":
            raise DemonstrationFailed(f"{repository} into {environment} ended as {row['state']}. {row['failure']}")
        return row

    def request(self, digest: str, repository: str, environment: str, *, tag: str, reason: str) -> dict[str, Any]:
        """Request one promotion as the developer."""
        body = {
            "digest": digest, "repository": repository, "environment": environment, "tag": tag, "reason": reason,
        }  # fmt: skip
        return self.api("shop-developer").post("promotions/", body)

    def await_plan(self, digest: str) -> dict[str, Any]:
        """Wait until the watch has proposed a wave for this new base, and return it with its jobs."""
        api = self.api("dock-master")

        def proposed() -> dict[str, Any] | None:
            for row in api.rows("rebuild-waves/", most=50, state="planned"):
                if row["new_digest"] == digest:
                    return row
            return None

        wave = self._await(PLANNED_WITHIN_S, proposed, "the watch to propose a rebuild wave")[0]
        return api.get(f"rebuild-waves/{wave['id']}/")

    def await_wave(self, wave_id: int, on_job: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Wait for a wave's end; `on_job` is told of each image that has ended. Raises DemonstrationFailed."""
        api, told = self.api("dock-master"), set[int]()

        def ended() -> dict[str, Any] | None:
            wave = api.get(f"rebuild-waves/{wave_id}/")
            for job in wave["jobs"]:
                if job["id"] not in told and job["finished_at"]:
                    told.add(job["id"])
                    on_job(job)
            return None if wave["state"] == "running" else wave

        wave = self._await(RENEWED_WITHIN_S, ended, f"wave {wave_id} to end", every_s=1.0)[0]
        if wave["state"] != "succeeded":
            problems = [f"    {job['repository']}: {job['problem']}" for job in wave["jobs"] if job["problem"]]
            raise DemonstrationFailed("\n".join([f"Wave {wave_id} ended as {wave['state']}.", *problems]))
        return wave

    def tidy(self) -> None:
        """End what an earlier run left: watches, waves that are planned or run, requests that are open."""
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
                    captain.post(
                        f"promotions/{row['id']}/withdraw/", {"reason": "The demonstration begins from the beginning."}
                    )

    def _image(self, digest: str, username: str) -> dict[str, Any] | None:
        try:
            return self.api(username).get(f"images/{digest}/")
        except CommandFailed as error:
            if error.status == 404:
                return None
            raise

    def _await(
        self, timeout_s: float, condition: Callable[[], Found | None], what: str, *, every_s: float = POLL_S
    ) -> tuple[Found, float]:
        """Return what `condition` gives when it gives something, and after how many seconds."""
        started = time.monotonic()
        while True:
            self._teller.check()
            try:
                found = condition()
            except Unreachable:  # a part that starts anew is no end of the story
                found = None
            waited = time.monotonic() - started
            if found is not None:
                return found, waited
            if waited > timeout_s:
                raise DemonstrationFailed(
                    f"Waited {timeout_s:.0f} s for {what}. `make status` tells what runs, `make logs` what it says."
                )
            time.sleep(every_s)
