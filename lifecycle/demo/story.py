"""The story, act by act; each step is done by the role that would do it, over the API or with a registry client."""

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
from lifecycle.demo.report import Promoted, Renewed
from lifecycle.demo.server import Server
from lifecycle.demo.telling import DemonstrationFailed, Teller
from lifecycle.registry.clients import client_for
from lifecycle.registry.services import ensure_managed_registry

ADVISORIES: Final = Path(__file__).parent.parent / "advisories" / "data" / "demo"
PATH: Final = tuple(cast.ENVIRONMENTS)  # dev, staging, production
# How far each image of the shop goes before upstream moves, and how far its renewed one goes afterwards.
GOES_TO: Final = {images.API: PATH, images.STATIC: PATH, images.WORKER: PATH[:1]}
RENEWED_GOES_TO: Final = {images.API: PATH, images.STATIC: PATH[:2], images.WORKER: PATH[:1]}
LEFT_OPEN: Final = (images.STATIC, "production")  # for the reader to decide
_SCRATCH_PREFIX: Final = "gd-story-"

Result = TypeVar("Result")


def remove_what_a_killed_run_left() -> None:
    """Remove the folders of runs that could not do it themselves; only for who runs alone, and in a folder of ours."""
    if settings.SCRATCH:
        for folder in Path(settings.SCRATCH).glob(f"{_SCRATCH_PREFIX}*"):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def threads(teller: Teller) -> Iterator[ThreadPoolExecutor]:
    """Run things beside each other; the first failure, or an interrupt, makes the others stop."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        try:
            yield pool
        except BaseException:
            teller.stop.set()
            raise


def all_of(*futures: Future[Result]) -> list[Result]:
    """Return the results when all are there; raises the first failure at once."""
    await_all(*futures)
    return [future.result() for future in futures]


def await_all(*futures: Future[Any]) -> None:
    """Wait for all; raises the first failure at once."""
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
        """Tell the whole story and return the content of `demo.json`; raises DemonstrationFailed."""
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
            self._let_in(pool)
            images_after = self._move_upstream(pool, patched)
            self._offer(pool, images_after)
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
        self.teller.act("People, rights, advisories")
        with self.teller.step(f"{len(cast.PARTS)} role accounts, teams base and shop, {' -> '.join(PATH)}"):
            self.accounts = cast.seed(self.registry, self.home / "demo-accounts.json", web=settings.PUBLIC_URL)
            self.server = Server(settings.PUBLIC_URL, self.accounts, self.teller)
            self.server.tidy()
        with self.teller.step("Advisories") as line:
            synced = sync_feed(str(ADVISORIES), feed_name="demo", actor=system_user())
            line.add(f": {synced.indexed} records of {synced.directories} ecosystems, {synced.stored} of them new")
        if synced.error_count:
            raise DemonstrationFailed(f"The advisories could not be read: {synced.errors[0]}")

    # --- act 2 ---

    def _push_images(self, pool: ThreadPoolExecutor, root: Future[Path]) -> Future[Built]:
        """Build and push the five images; return the patched base, which is being built meanwhile."""
        self.teller.act("Five images, four levels deep: built by buildah, pushed by skopeo with a token")
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
        add(f", seen {self.server.await_image(built.digest, keeper):.1f} s later")

    def _build_patched(self, *, after: Future[Built]) -> Built:
        after.result()  # two of these at once would only slow the first images down
        started = time.monotonic()
        root = self._make_root(with_security=True)
        built = self.builder.build(images.DEBIAN, name="patched", context=root)
        self.patched_seconds = round(time.monotonic() - started, 1)
        return built

    def _await_scan(self, product: Product, digest: str) -> None:
        with self.teller.step(product.reference) as line:
            image = self.server.await_scan(digest, product.keeper)
            found = len(report.open_pairs(self.server.findings(digest, product.keeper)))
            line.add(f": {image['package_count']} packages listed, {found} findings")

    # --- act 3 ---

    def _let_in(self, pool: ThreadPoolExecutor) -> None:
        self.teller.act("Promotions: requested by shop-developer, approved by shop-approver, executed by shop-deployer")
        digests = {product: self.before[product.repository].digest for product in GOES_TO}
        self._promote_all(pool, digests, GOES_TO, reason="First release of the shop.")
        target = f"production/{images.API.repository}"
        for username in (images.API.keeper, cast.READER):
            with self.teller.step(f"{username} pushes to {target} with skopeo, which must be refused") as line:
                refusal = self.builder.refusal(self.before[images.STATIC.repository], self.accounts[username], target)
                line.add(f": {_short(refusal)}")

    def _promote_all(
        self, pool: ThreadPoolExecutor, digests: dict[Product, str], goes_to: dict[Product, tuple[str, ...]], *,
        reason: str,
    ) -> None:  # fmt: skip
        """Take each image along its path, one environment after the other; the images beside each other."""
        rows = [
            pool.submit(self._promote, product, digest, goes_to[product], reason)
            for product, digest in digests.items()
        ]  # fmt: skip
        for promoted in all_of(*rows):
            self.promotions += promoted

    def _promote(self, product: Product, digest: str, environments: tuple[str, ...], reason: str) -> list[Promoted]:
        done: list[Promoted] = []
        for environment in environments:
            with self.teller.step(f"{product.reference} {digest[:19]} into {environment}"):
                row = self.server.promote(digest, product.repository, environment, tag=product.tag, reason=reason)
            done.append(Promoted(digest, _before(environment), environment, row["state"]))
        return done

    # --- act 4 ---

    def _move_upstream(self, pool: ThreadPoolExecutor, patched: Future[Built]) -> list[Renewed]:
        """Push the patched base, let the watch propose a wave, carry it out; return what became of each image."""
        self.teller.act("Upstream moves: Debian's security suite, and fixed releases of the Python libraries")
        server, base = self.server, images.DEBIAN
        with self.teller.step(f"dock-master watches {base.reference}"):
            server.api("dock-master").post(
                f"repositories/{server.repository_id(base.repository)}/watches/", {"tag": base.tag}
            )
        with self.teller.step("base-maintainer puts a new recipe of base/python in force") as line:
            line.add(f": revision {server.put_recipe(images.PYTHON_FIXED)}")
        with self.teller.step(f"{base.reference} again, with the security suite") as line:
            built = patched.result()
            line.add(f": image {built.digest[:19]}")
            self._push(built, line.add)
        with self.teller.step("The watch proposes") as line:
            wave = server.await_plan(built.digest)
            line.add(f" wave {wave['id']}:")
            for job in wave["jobs"]:
                line.add(f"\n              level {job['level']}  {job['repository']:12}  {job['method']:6}  ")
                line.add(_short(job["method_reason"]))
        self._check_methods(wave)
        server.api("dock-master").post(f"rebuild-waves/{wave['id']}/confirm/")
        self.teller.say("            dock-master confirms it")
        wave = server.await_wave(wave["id"], self._tell_job)
        self._await_scan(base, built.digest)
        return self._compare(built, wave)

    def _check_methods(self, wave: dict[str, Any]) -> None:
        planned = {job["repository"]: job["method"] for job in wave["jobs"]}
        expected = {product.repository: "build" for product in (images.PYTHON, images.API, images.WORKER)}
        expected[images.STATIC.repository] = "rebase"
        if planned != expected:
            raise DemonstrationFailed(f"The plan is not what these recipes ask for: {planned}, not {expected}.")

    def _tell_job(self, job: dict[str, Any]) -> None:
        came_of_it = job["state"]
        if came_of_it == "done":
            came_of_it = f"{job['findings_before']} -> {job['findings_after']} findings"
        self.teller.say(f"  {job['seconds'] or 0:6.1f} s  {job['repository']}: {job['method']}, {came_of_it}")

    def _compare(self, patched: Built, wave: dict[str, Any]) -> list[Renewed]:
        jobs = {job["repository"]: job for job in wave["jobs"]}
        rows = []
        for product in images.PRODUCTS:
            before = self.before[product.repository].digest
            job = jobs.get(product.repository)
            after = job["new_digest"] if job else patched.digest
            found = [self.server.findings(digest, product.keeper) for digest in (before, after)]
            row = report.renewed(
                product.repository, (before, after), (found[0], found[1]),
                method=job["method"] if job else "build", seconds=job["seconds"] if job else self.patched_seconds,
            )  # fmt: skip
            if row.findings_after >= row.findings_before:
                raise DemonstrationFailed(f"{row.repository} has as many findings as before: {row.findings_after}.")
            rows.append(row)
        return rows

    # --- act 5 ---

    def _offer(self, pool: ThreadPoolExecutor, renewed: list[Renewed]) -> None:
        self.teller.act("The renewed images, offered where the old ones are")
        digests = {row.repository: row.digest_after for row in renewed}
        chosen = {product: digests[product.repository] for product in RENEWED_GOES_TO}
        reason = "Renewed on the patched base."
        self._promote_all(pool, chosen, RENEWED_GOES_TO, reason=reason)
        product, environment = LEFT_OPEN
        with self.teller.step(f"{product.reference} into {environment}: requested, and left for you to decide"):
            row = self.server.request(
                chosen[product], product.repository, environment, tag=product.tag, reason=reason
            )  # fmt: skip
        self.promotions.append(Promoted(chosen[product], _before(environment), environment, row["state"]))


def _before(environment: str) -> str | None:
    position = PATH.index(environment)
    return PATH[position - 1] if position else None


def _short(text: str, length: int = 90) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
