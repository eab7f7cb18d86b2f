"""What the sign-in page offers beside the password."""

from __future__ import annotations

from typing import Any

from django import template

from lifecycle.sso.queries import enabled_providers, passwords_are_for_admins

register = template.Library()


@register.simple_tag
def sign_in_providers() -> dict[str, Any]:
    """Return the enabled providers, by name, and whether passwords are for admins only."""
    return {"providers": list(enabled_providers()), "passwords_for_admins": passwords_are_for_admins()}
