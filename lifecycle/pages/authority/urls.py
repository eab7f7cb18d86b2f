"""`/teams/`, `/roles/`, `/people/`, `/registries/` and `/account/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.authority.views import groups, keyless, people, profile, registries, robots, roles, teams, tokens

urlpatterns = [
    path("teams/", teams.teams, name="teams"),
    path("teams/<slug:slug>/", teams.team, name="team"),
    path("teams/<slug:slug>/rename/", teams.rename, name="team-rename"),
    path("teams/<slug:slug>/delete/", teams.delete, name="team-delete"),
    path("teams/<slug:slug>/move/", teams.move, name="team-move"),
    path("teams/<slug:slug>/members/", teams.add_member, name="team-add-member"),
    path("teams/<slug:slug>/groups/", teams.add_group, name="team-add-group"),
    path("teams/<slug:slug>/grants/<int:pk>/revoke/", teams.revoke_grant, name="team-revoke-grant"),
    path("teams/<slug:slug>/environments/", teams.create_environment, name="team-create-environment"),
    path("teams/<slug:slug>/robots/", robots.create, name="team-create-robot"),
    path("teams/<slug:slug>/robots/<int:pk>/", robots.robot, name="robot"),
    path("teams/<slug:slug>/robots/<int:pk>/grants/", robots.grant, name="robot-grant"),
    path("teams/<slug:slug>/robots/<int:pk>/tokens/", robots.create_token, name="robot-create-token"),
    path(
        "teams/<slug:slug>/robots/<int:pk>/tokens/<int:token>/revoke/", robots.revoke_token, name="robot-revoke-token"
    ),
    path("teams/<slug:slug>/robots/<int:pk>/take-over/", robots.take_over, name="robot-take-over"),
    path("teams/<slug:slug>/robots/<int:pk>/retire/", robots.retire, name="robot-retire"),
    path("teams/<slug:slug>/robots/<int:pk>/keyless/", keyless.rules, name="robot-keyless"),
    path("teams/<slug:slug>/robots/<int:pk>/keyless/<int:rule>/try/", keyless.try_rule, name="trust-rule-try"),
    path("teams/<slug:slug>/robots/<int:pk>/keyless/<int:rule>/end/", keyless.end, name="trust-rule-end"),
    path("groups/", groups.groups, name="groups"),
    path("groups/<int:pk>/", groups.group, name="group"),
    path("groups/<int:pk>/rename/", groups.rename, name="group-rename"),
    path("groups/<int:pk>/delete/", groups.delete, name="group-delete"),
    path("groups/<int:pk>/members/", groups.add_member, name="group-add-member"),
    path("groups/<int:pk>/members/<int:member>/remove/", groups.remove_member, name="group-remove-member"),
    path("roles/", roles.roles, name="roles"),
    path("roles/<slug:slug>/", roles.role, name="role"),
    path("roles/<slug:slug>/delete/", roles.delete, name="role-delete"),
    path("people/", people.people, name="people"),
    path("people/<int:pk>/", people.person, name="person"),
    path("people/<int:pk>/reset-password/", people.reset_password, name="person-reset-password"),
    path("people/<int:pk>/admin/", people.set_admin, name="person-admin"),
    path("people/<int:pk>/verify-mail/", people.verify_mail, name="person-verify-mail"),
    path("people/<int:pk>/deactivate/", people.deactivate, name="person-deactivate"),
    path("people/<int:pk>/reactivate/", people.reactivate, name="person-reactivate"),
    path("registries/", registries.registries, name="registries"),
    path("registries/new/", registries.new_registry, name="new-registry"),
    path("registries/<int:pk>/", registries.registry, name="registry"),
    path("registries/<int:pk>/test/", registries.test, name="registry-test"),
    path("registries/<int:pk>/remove/", registries.remove, name="registry-remove"),
    path("account/", profile.profile, name="profile"),
    path("account/link/<str:text>/", profile.link, name="account-link"),
    path("account/tokens/", tokens.tokens, name="tokens"),
    path("account/tokens/<int:pk>/revoke/", tokens.revoke, name="token-revoke"),
]
