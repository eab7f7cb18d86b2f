"""A withdrawn image in a real Distribution: skopeo cannot copy it, a push is undone, and a release brings it back."""

from __future__ import annotations

from pathlib import Path

from lifecycle.quarantine import services
from lifecycle.quarantine.models import Withdrawal
from lifecycle.registry.models import Tag
from tests.factories import dock, oci
from tests.integration.registry.test_real_clients import push, where
from tests.integration.registry.test_token_endpoint import Make
from tests.services import Services, wait_until
from tests.skopeo import skopeo


def test_withdrawn_image_is_pulled_by_nobody_but_the_guards(live_stack: Services, person: Make, tmp_path: Path) -> None:
    shop = dock.team("shop")
    owner, second = person("anna", "owner", of=shop), person("berta", "owner", of=shop)
    creator = person("carl", "creator", of=shop)
    item = oci.image("backdoor")
    layout, digest = oci.layout(tmp_path / "image", item), item.manifest.digest.text
    pulls = iter(range(20))

    def pull(who, reference: str) -> str:
        """Return what a real `skopeo copy` writes to stderr; "" when it succeeds."""
        done = skopeo("copy", "--src-tls-verify=false", f"--src-creds={who.user.username}:{who.token}",
                      where(live_stack, reference), f"dir:{tmp_path / str(next(pulls))}")  # fmt: skip
        return done.stderr if done.returncode else ""

    def is_tagged(name: str) -> bool:
        return Tag.objects.filter(repository__name="shop/api", name=name, image__digest=digest).exists()

    assert push(live_stack, creator, layout, "shop/api:1.0").returncode == 0
    wait_until(lambda: is_tagged("1.0"), 30)
    assert pull(creator, "shop/api:1.0") == ""

    row = services.quarantine(digest, actor=owner.user, reason="Contains a backdoor.", withdraw=True)
    wait_until(lambda: Withdrawal.objects.filter(state="removed").exists(), 30)
    for reference in ("shop/api:1.0", f"shop/api@{digest}"):
        assert "manifest unknown" in pull(owner, reference)
    assert pull(owner, f"quarantine/shop/api@{digest}") == ""
    refused = pull(creator, f"quarantine/shop/api@{digest}")
    assert "denied" in refused or "unauthorized" in refused, refused
    assert push(live_stack, owner, layout, "quarantine/shop/api:mine").returncode != 0

    assert push(live_stack, creator, layout, "shop/api:again").returncode == 0
    wait_until(lambda: "manifest unknown" in pull(creator, "shop/api:again"), 30, every_s=1)
    assert "manifest unknown" in pull(creator, f"shop/api@{digest}")

    services.request_release(row.pk, actor=owner.user, reason="False alarm.")
    services.release(row.pk, actor=second.user)
    wait_until(lambda: Withdrawal.objects.filter(state="restored").exists(), 30)
    assert pull(creator, "shop/api:1.0") == ""
    assert is_tagged("1.0")
    wait_until(lambda: "manifest unknown" in pull(owner, f"quarantine/shop/api@{digest}"), 30, every_s=1)
