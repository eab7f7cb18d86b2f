"""Providers, rules and identities, as pages, the API and the sign-in read them."""

from __future__ import annotations

from django.conf import settings
from django.db.models import QuerySet
from django.urls import reverse

from accounts.models import Identity, User
from lifecycle.authority.rights import is_above_grants
from lifecycle.core import sealing
from lifecycle.core.errors import NotFound, NotPermitted
from lifecycle.sso.models import ClaimRule, IdentityProvider, SignInPolicy

_NO_PROVIDER = "Provider not found."


def providers_for(actor: User) -> QuerySet[IdentityProvider]:
    """Return all providers; raises NotPermitted unless `actor` is an admin."""
    if not is_above_grants(actor):
        raise NotPermitted("Only admins can manage sign-in. Ask an admin.")
    return IdentityProvider.objects.all()


def provider_for(actor: User, slug: str) -> IdentityProvider:
    """Return one provider; raises NotPermitted, NotFound."""
    provider = providers_for(actor).filter(slug=slug).first()
    if provider is None:
        raise NotFound(_NO_PROVIDER)
    return provider


def enabled_providers() -> QuerySet[IdentityProvider]:
    """Return the providers that the sign-in page offers, by name. Everybody sees their names."""
    return IdentityProvider.objects.filter(is_enabled=True).order_by("name", "pk")


def enabled_provider(slug: str) -> IdentityProvider:
    """Return one of `enabled_providers`; raises NotFound."""
    provider = enabled_providers().filter(slug=slug).first()
    if provider is None:
        raise NotFound(_NO_PROVIDER)
    return provider


def rules_of(provider: IdentityProvider) -> QuerySet[ClaimRule]:
    """Return the rules of a provider with what they give, in the order of their creation."""
    rows = ClaimRule.objects.filter(provider=provider).order_by("pk")
    return rows.select_related("group__team", "role", "team", "environment", "provider", "created_by")


def identities_of(user: User) -> QuerySet[Identity]:
    """Return the identities with which a user can sign in now, by provider."""
    return Identity.objects.filter(user=user, ended_at=None).order_by("issuer", "pk")


def own_providers(user: User) -> QuerySet[IdentityProvider]:
    """Return the enabled providers with which a user can sign in, by name."""
    return enabled_providers().filter(issuer__in=identities_of(user).order_by().values("issuer"))


def takes_password(user: User) -> bool:
    """Return whether an account may sign in with a password: all may, or only admins, who can always repair things."""
    policy = SignInPolicy.objects.first()
    return policy is None or not policy.passwords_only_for_admins or user.is_superuser


def passwords_are_for_admins() -> bool:
    """Return whether only admins can sign in with a password."""
    return SignInPolicy.objects.filter(passwords_only_for_admins=True).exists()


def secret_of(provider: IdentityProvider) -> str:
    """Return the client secret of a provider, for a call to it; raises Unreadable."""
    return sealing.unseal(bytes(provider.client_secret_encrypted), provider, "client_secret_encrypted")


def callback_of(slug: str) -> str:
    """Return the address that the provider must know as the redirect address of our client."""
    return f"{settings.PUBLIC_URL}{reverse('lifecycle:sso-callback', args=[slug])}"
