"""The steps of the demonstration, act by act. The right role does each step, with the API or a registry client."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

from django.conf import settings

from accounts.queries import system_user
from lifecycle.advisories.services import sync_feed
from lifecycle.demo import building, cast, images, report
from lifecycle.demo.building import Builder, Built
from lifecycle.demo.cast import Account
from lifecycle.demo.images import Product
from lifecycle.demo.report import Promoted, RebuiltImage
from lifecycle.demo.server import Server
from lifecycle.demo.telling import DemonstrationFailed, Teller
from lifecycle.registry.clients import client_for
from lifecycle.registry.services import ensure_managed_registry

ADVISORIES: Final = Path(__file__).parent.parent / "advisories" / "data" / "demo"
PATH: Final = tuple(cast.ENVIRONMENTS)  # dev, staging, production
# The environments to which each image of the shop is promoted, before the upstream update and after the rebuild.
GOES_TO: Final = {images.API: PATH, images.STATIC: PATH, images.WORKER: PATH[:1]}
REBUILT_GOES_TO: Final = {images.API: PATH, images.STATIC: PATH[:2], images.WORKER: PATH[:1]}
LEFT_OPEN: Final = (images.STATIC, "production")  # for the user to approve
_SCRATCH_PREFIX: Final = "gd-story-"

Result = TypeVar("Result")


def remove_folders_of_killed_runs() -> None:
    """Remove the folders of killed runs from SCRATCH. Call it only while no other run is active."""
    if settings.SCRATCH:
        for folder in Path(settings.SCRATCH).glob(f"{_SCRATCH_PREFIX}*"):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def threads(teller: Teller) -> Iterator[ThreadPoolExecutor]:
    """Yield a thread pool. The first failure or an interrupt stops the other threads."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        try:
            yield pool
        except BaseException:
            teller.stop.set()
            raise


def all_of(*futures: Future[Result]) -> list[Result]:
    """Wait for all futures and return their results; raises the first failure immediately."""
    await_all(*futures)
    return [future.result() for future in futures]


def await_all(*futures: Future[Any]) -> None:
    """Wait for all futures; raises the first failure immediately."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()


class Story:
    """One run of the demonstration."""

    def __init__(self, teller: Teller, home: Path) -> None:
        self.teller, self.home = teller, home
        self.accounts: dict[str, Account] = {}
        self.before: dict[str, Built] = {}  # by repository
        self.promotions: list[Promoted] = []
        self.patched_seconds = 0.0

    def run(self) -> dict[str, Any]:
        """Run all acts and return the content of `demo.json`; raises DemonstrationFailed."""
        building.check_tools()
        self.registry = ensure_managed_registry()
        host = self.registry.host
        with (
            TemporaryDirectory(prefix=_SCRATCH_PREFIX, dir=settings.SCRATCH or None) as folder,
            threads(self.teller) as pool,
        ):
            self.builder = Builder(
                Path(folder), client_for(self.registry), host=host,
                is_https=self.registry.endpoint.startswith("https"), teller=self.teller,
            )  # fmt: skip
            root = pool.submit(self._make_root, with_security=False)
            self._set_up()
            patched = self._push_images(pool, root)
            self._promote_first_release(pool)
            images_after = self._move_upstream(pool, patched)
            self._promote_rebuilt(pool, images_after)
        return report.document(
            web=settings.PUBLIC_URL, registry=host, seconds=self.teller.seconds, images=images_after,
            promotions=self.promotions,
        )  # fmt: skip

    def _make_root(self, *, with_security: bool) -> Path:
        with_or_without = "with" if with_security else "without"
        with self.teller.step(f"Debian bookworm from the mirror, {with_or_without} its security suite (mmdebstrap)"):
            return self.builder.make_root(f"{with_or_without}-security", with_security=with_security)

    # --- act 1 ---

    def _set_up(self) -> None:
        self.teller.act("Accounts, roles, advisories")
        with self.teller.step(f"{len(cast.PARTS)} role accounts, teams base and shop, {' -> '.join(PATH)}"):
            self.accounts = cast.seed(self.registry, self.home / "demo-accounts.json", web=settings.PUBLIC_URL)
            self.server = Server(settings.PUBLIC_URL, self.accounts, self.teller)
            self.server.tidy()
        with self.teller.step("Advisories") as line:
            synced = sync_feed(str(ADVISORIES), feed_name="demo", actor=system_user())
            line.add(f": {synced.indexed} records, {synced.stored} of them new")
        if synced.error_count:
            raise DemonstrationFailed(f"The advisories could not be read: {synced.errors[0]}")

    # --- act 2 ---

    def _push_images(self, pool: ThreadPoolExecutor, root: Future[Path]) -> Future[Built]:
        """Build and push the five images; return the future of the patched base, which is built at the same time."""
        self.teller.act("Five images on four levels: built with buildah, pushed with skopeo and a token")
        debian = self._build_and_push(images.DEBIAN, context=root.result())
        chain = pool.submit(self._push_chain, debian)
        static = pool.submit(self._build_and_push, images.STATIC, base=debian)
        patched = pool.submit(self._build_patched, after=static)
        await_all(chain, static)
        for product in images.PRODUCTS:
            self._await_scan(product, self.before[product.repository].digest)
        return patched

    def _push_chain(self, debian: Built) -> None:
        below = debian
        for product in (images.PYTHON, images.API, images.WORKER):
            below = self._build_and_push(product, base=below)

    def _build_and_push(self, product: Product, *, base: Built | None = None, context: Path | None = None) -> Built:
        bases = {base.product.reference: base.pinned} if base is not None else {}
        with self.teller.step(product.reference) as line:
            if product.has_recipe:
                line.add(f": recipe {self.server.put_recipe(product)}")
            built = self.builder.build(product, name=product.repository.replace("/", "-"), bases=bases, context=context)
            line.add(f"{' and' if product.has_recipe else ':'} image {built.digest[:19]}, pushed by {product.keeper}")
            self._push(built, line.add)
        self.before[product.repository] = built
        return built

    def _push(self, built: Built, add: Callable[[str], None]) -> None:
        keeper = built.product.keeper
        self.builder.push(built, self.accounts[keeper])
        add(f", shown {self.server.await_image(built.digest, keeper):.1f} s later")

    def _build_patched(self, *, after: Future[Built]) -> Built:
        after.result()  # two of these builds at once would slow down the first images
        started = time.monotonic()
        root = self._make_root(with_security=True)
        built = self.builder.build(images.DEBIAN, name="patched", context=root)
        self.patched_seconds = round(time.monotonic() - started, 1)
        return built

    def _await_scan(self, product: Product, digest: str) -> None:
        with self.teller.step(product.reference) as line:
            image = self.server.await_scan(digest, product.keeper)
            findings_count = len(report.open_pairs(self.server.findings(digest, product.keeper)))
            line.add(f": {image['package_count']} packages, {findings_count} findings")

    # --- act 3 ---

    def _promote_first_release(self, pool: ThreadPoolExecutor) -> None:
        self.teller.act("Promotions: requested by shop-developer, approved by shop-approver, run by shop-deployer")
        digests = {product: self.before[product.repository].digest for product in GOES_TO}
        self._promote_all(pool, digests, GOES_TO, reason="First release of the shop.")
        target = f"production/{images.API.repository}"
        for username in (images.API.keeper, cast.READER):
            with self.teller.step(f"{username} pushes to {target} with skopeo; this must be refused") as line:
                refusal = self.builder.refusal(self.before[images.STATIC.repository], self.accounts[username], target)
                line.add(f": {_short(refusal)}")

    def _promote_all(
        self, pool: ThreadPoolExecutor, digests: dict[Product, str], goes_to: dict[Product, tuple[str, ...]], *,
        reason: str,
    ) -> None:  # fmt: skip
        """Promote each image to its environments in order, several images at the same time."""
        rows = [
            pool.submit(self._promote, product, digest, goes_to[product], reason)
            for product, digest in digests.items()
        ]  # fmt: skip
        for promoted in all_of(*rows):
            self.promotions += promoted

    def _promote(self, product: Product, digest: str, environments: tuple[str, ...], reason: str) -> list[Promoted]:
        done: list[Promoted] = []
        for environment in environments:
            with self.teller.step(f"{product.reference} {digest[:19]} to {environment}"):
                row = self.server.promote(digest, product.repository, environment, tag=product.tag, reason=reason)
            done.append(Promoted(digest, _before(environment), environment, row["state"]))
        return done

    # --- act 4 ---

    def _move_upstream(self, pool: ThreadPoolExecutor, patched: Future[Built]) -> list[RebuiltImage]:
        """Push the patched base, wait for the planned wave and run it; return the result of each image."""
        self.teller.act("Upstream update: Debian's security suite, and fixed releases of the Python libraries")
        server, base = self.server, images.DEBIAN
        with self.teller.step(f"dock-master watches {base.reference}"):
            server.api("dock-master").post(
                f"repositories/{server.repository_id(base.repository)}/watches/", {"tag": base.tag}
            )
        with self.teller.step("base-maintainer updates the recipe of base/python") as line:
            line.add(f": revision {server.put_recipe(images.PYTHON_FIXED)}")
        with self.teller.step(f"{base.reference} again, with the security suite") as line:
            built = patched.result()
            line.add(f": image {built.digest[:19]}")
            self._push(built, line.add)
        with self.teller.step("Planned by the watch:") as line:
            wave = server.await_plan(built.digest)
            line.add(f" wave {wave['id']}")
            for job in wave["jobs"]:
                line.add(f"\n              level {job['level']}  {job['repository']:12}  {job['method']:6}  ")
                line.add(_short(job["method_reason"]))
        self._check_methods(wave)
        server.api("dock-master").post(f"rebuild-waves/{wave['id']}/confirm/")
        self.teller.say("            dock-master starts the wave")
        wave = server.await_wave(wave["id"], self._print_job)
        self._await_scan(base, built.digest)
        return self._compare(built, wave)

    def _check_methods(self, wave: dict[str, Any]) -> None:
        planned = {job["repository"]: job["method"] for job in wave["jobs"]}
        expected = {product.repository: "build" for product in (images.PYTHON, images.API, images.WORKER)}
        expected[images.STATIC.repository] = "rebase"
        if planned != expected:
            raise DemonstrationFailed(f"The plan has the wrong methods: {planned} instead of {expected}.")

    def _print_job(self, job: dict[str, Any]) -> None:
        result = job["state"]
        if result == "done":
            result = f"{job['findings_before']} -> {job['findings_after']} findings"
        self.teller.say(f"  {job['seconds'] or 0:6.1f} s  {job['repository']}: {job['method']}, {result}")

    def _compare(self, patched: Built, wave: dict[str, Any]) -> list[RebuiltImage]:
        jobs = {job["repository"]: job for job in wave["jobs"]}
        rows = []
        for product in images.PRODUCTS:
            before = self.before[product.repository].digest
            job = jobs.get(product.repository)
            after = job["new_digest"] if job else patched.digest
            findings = [self.server.findings(digest, product.keeper) for digest in (before, after)]
            row = report.rebuilt_image(
                product.repository, (before, after), (findings[0], findings[1]),
                method=job["method"] if job else "build", seconds=job["seconds"] if job else self.patched_seconds,
            )  # fmt: skip
            if row.findings_after >= row.findings_before:
                raise DemonstrationFailed(
                    f"{row.repository} does not have fewer findings than before: {row.findings_after}."
                )
            rows.append(row)
        return rows

    # --- act 5 ---

    def _promote_rebuilt(self, pool: ThreadPoolExecutor, rebuilt: list[RebuiltImage]) -> None:
        self.teller.act("Promotion of the rebuilt images to the environments of the old ones")
        digests = {row.repository: row.digest_after for row in rebuilt}
        chosen = {product: digests[product.repository] for product in REBUILT_GOES_TO}
        reason = "Rebuilt on the patched base."
        self._promote_all(pool, chosen, REBUILT_GOES_TO, reason=reason)
        product, environment = LEFT_OPEN
        with self.teller.step(f"{product.reference} to {environment}: requested; you can approve it"):
            row = self.server.request(
                chosen[product], product.repository, environment, tag=product.tag, reason=reason
            )  # fmt: skip
        self.promotions.append(Promoted(chosen[product], _before(environment), environment, row["state"]))


def _before(environment: str) -> str | None:
    position = PATH.index(environment)
    return PATH[position - 1] if position else None


def _short(text: str, length: int = 90) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
