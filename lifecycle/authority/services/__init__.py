"""Actions on teams, environments, grants, roles, robots, accounts and tokens.

The audit event of an action is written in the transaction of the action.
"""

from lifecycle.authority.services.accounts import (
    change_profile,
    create_person,
    deactivate,
    link_for,
    note_password_changed,
    reactivate,
    reset_password,
    set_admin,
    use_link,
    verify_mail,
)
from lifecycle.authority.services.asking import (
    ask_for_access,
    decline_access,
    grant_access,
    withdraw_access_request,
)
from lifecycle.authority.services.environments import create_environment
from lifecycle.authority.services.groups import (
    add_to_group,
    create_group,
    delete_group,
    remove_from_group,
    rename_group,
)
from lifecycle.authority.services.moving import move_repositories
from lifecycle.authority.services.robots import (
    create_robot,
    create_robot_token,
    grant_robot,
    retire_robot,
    revoke_robot_token,
    take_over_robot,
    why_not_taken_over,
)
from lifecycle.authority.services.roles import change_role, create_role, delete_role
from lifecycle.authority.services.second_factors import (
    add_passkey,
    add_totp,
    make_recovery_codes,
    note_confirmed,
    note_recovery_code,
    note_refused,
    remove_passkey,
    remove_totp,
    reset_factors,
    why_not_change_factors,
    why_not_remove_factor,
)
from lifecycle.authority.services.security import change_security, security_now
from lifecycle.authority.services.sessions import end_other_sessions, end_session, end_sessions_of
from lifecycle.authority.services.teams import (
    add_group,
    add_member,
    create_team,
    delete_team,
    rename_team,
    revoke_grant,
)
from lifecycle.authority.services.tokens import create_api_token, create_registry_sign_in, revoke_api_token

__all__ = [
    "add_group",
    "add_member",
    "add_passkey",
    "add_to_group",
    "add_totp",
    "ask_for_access",
    "change_profile",
    "change_role",
    "change_security",
    "create_api_token",
    "create_environment",
    "create_group",
    "create_person",
    "create_registry_sign_in",
    "create_robot",
    "create_robot_token",
    "create_role",
    "create_team",
    "deactivate",
    "decline_access",
    "delete_group",
    "delete_role",
    "delete_team",
    "end_other_sessions",
    "end_session",
    "end_sessions_of",
    "grant_access",
    "grant_robot",
    "link_for",
    "make_recovery_codes",
    "move_repositories",
    "note_confirmed",
    "note_password_changed",
    "note_recovery_code",
    "note_refused",
    "reactivate",
    "remove_from_group",
    "remove_passkey",
    "remove_totp",
    "rename_group",
    "rename_team",
    "reset_factors",
    "reset_password",
    "retire_robot",
    "revoke_api_token",
    "revoke_grant",
    "revoke_robot_token",
    "security_now",
    "set_admin",
    "take_over_robot",
    "use_link",
    "verify_mail",
    "why_not_change_factors",
    "why_not_remove_factor",
    "why_not_taken_over",
    "withdraw_access_request",
]
