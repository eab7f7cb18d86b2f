"""Trust rules, and the identity tokens that were exchanged."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from accounts.models import ApiToken, Robot, User


class TrustRule(models.Model):
    """Which identity tokens of a CI system become tokens of a robot: issuer, audience and claims, all of them.

    The robot's grants say what the job can do, in which scope. The robot is bounded by who is responsible for it, and a
    rule works only while the user who made it could still create a token of the robot.
    """

    robot = models.ForeignKey(Robot, on_delete=models.CASCADE, related_name="trust_rules")
    name = models.CharField(max_length=120)
    issuer = models.CharField(max_length=300)  # exactly the `iss` of the tokens
    audience = models.CharField(max_length=300)  # one of the `aud` of the tokens
    claims = models.JSONField()  # claim -> pattern; a star matches any characters
    made_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    # The token that was used to make the rule: the rule gives nothing once that token does not work any more.
    made_with = models.ForeignKey(ApiToken, on_delete=models.RESTRICT, related_name="+", null=True, db_index=False)
    ended_at = models.DateTimeField(null=True, blank=True)
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        default_permissions = ()
        indexes = (models.Index(fields=("issuer",), condition=Q(ended_at=None), name="trustrule_live_by_issuer"),)

    def __str__(self) -> str:
        return f"{self.name} of {self.robot}"


class Exchange(models.Model):
    """One identity token that was exchanged: it is never accepted again."""

    rule = models.ForeignKey(TrustRule, on_delete=models.CASCADE, related_name="exchanges")
    # SHA-256 of issuer and jti; of a token without jti, of what its issuer signed.
    identity_sha256 = models.BinaryField(max_length=32, unique=True)
    token = models.ForeignKey(ApiToken, on_delete=models.SET_NULL, related_name="+", null=True)
    subject = models.CharField(max_length=300)
    at = models.DateTimeField(auto_now_add=True)
    forget_at = models.DateTimeField(db_index=True)  # when the identity token is refused for its age anyway

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.subject} by {self.rule}"
