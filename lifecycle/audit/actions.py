"""All audit actions, and the meaning of each. `details_of_actions.py` has what is stored with them."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Action(StrEnum):
    """Something that was done, approved or rejected, or denied.

    Values are stored and searched for, so never change one. Each member is written as (stored value, meaning).
    """

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    ACCESS_FILE_APPLIED = "access.file_applied", "An access file was applied."
    ACCESS_REQUESTED = "access.requested", "A person asked for a role in a team."
    ACCESS_GRANTED = "access.granted", "A request for a role was granted until a date."
    ACCESS_DECLINED = "access.declined", "A request for a role was declined."
    ACCESS_WITHDRAWN = "access.withdrawn", "A person took back a request for a role."
    ACCESS_REFUSED = (
        "access.refused",
        "A signed-in user tried to change something without permission to change or see it.",
    )
    ADMISSION_DEBT_REVIEWED = "admission.debt_reviewed", "A person reviewed a use of break-glass in a cluster."
    ADVISORIES_SYNCED = "advisories.synced", "Gravingdock synced an advisory feed."
    ALERT_ACKNOWLEDGED = "alert.acknowledged", "A person works on an alert: nobody is reminded of it."
    ALERT_RESOLVED = "alert.resolved", "A person closed an alert with a reason."
    ALERT_SNOOZED = "alert.snoozed", "A person put an alert off until a time."
    FEED_ADDED = "feed.added", "An admin added a feed of advisories or exploits."
    FEED_CHANGED = "feed.changed", "An admin changed the address, the schedule or the limits of a feed."
    FEED_REMOVED = "feed.removed", "An admin removed a feed with all that it brought."
    EXPLOITS_SYNCED = "exploits.synced", "Gravingdock synced a list of exploits (KEV or EPSS)."
    ADVISORY_APPROVED = "advisory.approved", "A second person approved a private advisory: it counts."
    ADVISORY_CANCELLED = "advisory.cancelled", "The author took the proposal of a private advisory back."
    ADVISORY_PROPOSED = "advisory.proposed", "A private advisory, or another revision of one, waits for approval."
    ADVISORY_REJECTED = "advisory.rejected", "An admin rejected a private advisory."
    FIX_ASSIGNED = "fix.assigned", "A fix was assigned to a person or a team."
    FIX_COMMENTED = "fix.commented", "A person commented on a fix."
    FIX_SNOOZED = "fix.snoozed", "A fix was put off until a time, or until there is one."
    FIX_UNASSIGNED = "fix.unassigned", "A fix is assigned to nobody any more."
    FIX_WOKEN = "fix.woken", "A person ended the snooze of a fix."
    AUDIT_ANCHOR_ADDED = "audit.anchor_added", "An admin added a place that gets checkpoints of the audit log."
    AUDIT_ANCHOR_REMOVED = "audit.anchor_removed", "An admin removed a place that got checkpoints of the audit log."
    AUDIT_EXPORTED = "audit.exported", "A person exported audit events."
    AUDIT_LOG_STARTED = "audit.log_started", "A log of sealed events began, the first one or after a restore."
    BUILDER_TURNED_OFF = (
        "builder.turned_off",
        "An admin turned the embedded builder off for a team or a repository.",
    )
    BUILDER_TURNED_ON = "builder.turned_on", "An admin turned the embedded builder on for a team or a repository."
    CHANNEL_CHANGED = "channel.changed", "A channel for notices was changed, turned on or turned off."
    CHANNEL_CREATED = "channel.created", "A webhook or a chat was set up as a channel for notices."
    CHANNEL_DELETED = "channel.deleted", "A channel for notices was deleted."
    CHANNEL_TURNED_OFF = (
        "channel.turned_off",
        "Gravingdock turned a channel off, because its receiver wants no more messages.",
    )
    CLUSTER_AGENT_BOUND = "cluster.agent_bound", "A robot was made that reports one cluster, and sees no other."
    CLUSTER_BINDINGS_CHANGED = (
        "cluster.bindings_changed",
        "The namespaces of a cluster were bound to other environments.",
    )
    CLUSTER_CHANGED = "cluster.changed", "The settings of a cluster were changed."
    CLUSTER_CREATED = "cluster.created", "A cluster was added to a team."
    CLUSTER_DELETED = "cluster.deleted", "A cluster was deleted. What ran there stays known for 90 days."
    CLUSTER_SECRET_CREATED = (
        "cluster.secret_created",
        "A secret of a cluster was created. The one before stays valid for 24 hours.",
    )
    DEMO_SEEDED = "demo.seeded", "The demonstration created its teams, accounts and environments."
    DUE_DATES_SAVED = "due_dates.saved", "An admin saved the table of due dates."
    ENVIRONMENT_CHANGED = (
        "environment.changed",
        "The settings or the approval rules of an environment were changed.",
    )
    ENVIRONMENT_CREATED = "environment.created", "An environment was added to a team's promotion path."
    ENVIRONMENT_REMOVED = "environment.removed", "An unused environment was removed from a team's promotion path."
    ENVIRONMENT_UNSATISFIABLE = (
        "environment.unsatisfiable",
        "Too few people are left to approve promotions to an environment.",
    )
    WINDOW_CREATED = "window.created", "A freeze or allowed hours for promotions were set."
    WINDOW_DELETED = "window.deleted", "A freeze or allowed hours for promotions were removed."
    EXTERNAL_CHECK_CHANGED = (
        "external_check.changed",
        "The address or the secret of an external check was changed. Its earlier answers do not count any more.",
    )
    EXTERNAL_CHECK_CREATED = "external_check.created", "An external check was set up for the rules of policies."
    EXTERNAL_CHECK_DELETED = "external_check.deleted", "An external check was deleted. Rules about it no longer pass."
    GRANT_CHANGED = "grant.changed", "The expiry of a grant was changed."
    GRANT_CREATED = "grant.created", "A user or a group was granted a role."
    GRANT_REVOKED = "grant.revoked", "A grant was revoked."
    GROUP_CHANGED = "group.changed", "The name of a group was changed."
    GROUP_CREATED = "group.created", "A group of people was created."
    GROUP_DELETED = "group.deleted", "A group was deleted, with its grants."
    GROUP_MEMBER_ADDED = "group.member_added", "A person or a group was added to a group, and got its roles."
    GROUP_MEMBER_REMOVED = "group.member_removed", "A person or a group was removed from a group, and lost its roles."
    IDENTITY_LINKED = "identity.linked", "A person can sign in with an identity of a provider."
    IDENTITY_UNLINKED = "identity.unlinked", "An identity of a provider no longer signs in to an account."
    HOLD_CREATED = "hold.created", "A user put promotions on hold, or stopped the line."
    HOLD_LIFTED = "hold.lifted", "A user lifted a hold or a stop before it expired."
    IMAGE_DELETION_REQUESTED = "image.deletion_requested", "A user asked to delete an image or a tag in the registry."
    IMAGE_DELETED = "image.deleted", "An image was deleted from a repository in the registry."
    IMAGE_PUSH_ATTRIBUTED = (
        "image.push_attributed",
        "The user who pushed an already recorded image was identified.",
    )
    IMAGE_PUSHED = "image.pushed", "An image was pushed to a repository, or a tag was moved to it."
    IMAGE_POLICY_FAILED = (
        "image.policy_failed",
        "An image that was pushed does not pass a rule that warns or enforces at ingest.",
    )
    IMAGE_QUARANTINED = "image.quarantined", "An image was quarantined: nobody can promote it or build on it."
    IMAGE_RESCAN_REQUESTED = "image.rescan_requested", "A user asked to scan an image again."
    IMAGE_REBUILD_FAILED = "image.rebuild_failed", "The rebuild of an image failed."
    IMAGE_REBUILT = "image.rebuilt", "An image was rebuilt on a new base."
    IMAGE_SBOM_CHOSEN = "image.sbom_chosen", "Another SBOM than before decides what packages an image has."
    IMAGE_SBOM_SENT = "image.sbom_sent", "A user sent an SBOM of an image."
    IMAGE_SBOM_WITHDRAWN = "image.sbom_withdrawn", "A user withdrew an SBOM of an image: it decides nothing any more."
    IMAGE_SIGNATURES_CHANGED = (
        "image.signatures_changed",
        "The number of verified signatures of an image changed.",
    )
    INVENTORY_IMPORTED = "inventory.imported", "A batch of images was imported from an inventory file."
    JOB_CANCELLED = "job.cancelled", "A person cancelled a job."
    JOB_RETRIED = "job.retried", "A person retried a job that had failed or been cancelled."
    KEYS_ROTATED = "keys.rotated", "All stored secrets were encrypted with the current FIELD_KEY."
    LINEAGE_DECLARED = "lineage.declared", "The base of an image was declared."
    METADATA_REMOVED = "metadata.removed", "A key of the metadata of a repository or image was removed."
    METADATA_SET = "metadata.set", "A key of the metadata of a repository or image was set."
    PENTEST_ACCEPTANCE_ENDED = (
        "pentest.acceptance_ended",
        "An accepted pen-test finding is open again.",
    )
    PENTEST_ACCEPTED = "pentest.accepted", "A second person accepted a pen-test finding until a time."
    PENTEST_ACCEPT_REQUESTED = "pentest.accept_requested", "A person asked to accept a pen-test finding."
    PENTEST_CONFIRMED = "pentest.confirmed", "A person confirmed a pen-test finding."
    PENTEST_DISMISSED = "pentest.dismissed", "A person marked a pen-test finding as a false positive."
    PENTEST_RETEST = "pentest.retest", "A person asked to test again whether a pen-test finding is fixed."
    PENTEST_SENT = "pentest.sent", "A pen-test report of an image was stored."
    POLICY_SAVED = "policy.saved", "A new revision of a rule set was saved."
    PROMOTION_APPROVED = "promotion.approved", "A person approved a promotion request."
    PROMOTION_ATTEMPT_FAILED = (
        "promotion.attempt_failed",
        "A promotion failed for a technical reason; it can be run again.",
    )
    PROMOTION_BREAK_GLASS = (
        "promotion.break_glass",
        "A person promoted an image past unmet requirements; another person must review it.",
    )
    PROMOTION_COMMENTED = "promotion.commented", "A user commented on a promotion request."
    PROMOTION_EXECUTING = "promotion.executing", "A promotion was started."
    PROMOTION_EXPIRED = "promotion.expired", "A promotion request expired before it was approved or run."
    PROMOTION_FAILED = "promotion.failed", "A promotion failed; the environment kept the image it had."
    PROMOTION_OBJECTED = "promotion.objected", "A person objected to a promotion request."
    PROMOTION_OBJECTION_OVERRULED = (
        "promotion.objection_overruled",
        "A user who manages the environment overruled an objection to a promotion request.",
    )
    PROMOTION_READY = "promotion.ready", "A promotion request met every requirement."
    PROMOTION_REGRESSED = "promotion.regressed", "A promotion request that was ready stopped meeting its requirements."
    PROMOTION_REJECTED = "promotion.rejected", "A person rejected a promotion request."
    PROMOTION_REMINDED = "promotion.reminded", "The deadline of a promotion request is near."
    PROMOTION_REQUESTED = "promotion.requested", "A promotion of an image into an environment was requested."
    PROMOTION_REVIEWED = "promotion.reviewed", "A person reviewed a use of break-glass."
    PROMOTION_REVIEW_OVERDUE = "promotion.review_overdue", "A use of break-glass was not reviewed in time."
    PROMOTION_SUCCEEDED = "promotion.succeeded", "A promotion succeeded, and the environment has the new image."
    PROMOTION_SUPERSEDED = "promotion.superseded", "A newer promotion request replaced this one."
    PROMOTION_SUPERSEDING = (
        "promotion.superseding",
        "A newer promotion request is ready and will replace this one in 10 minutes.",
    )
    PROMOTION_THREAD_RESOLVED = "promotion.thread_resolved", "A thread on a promotion request was resolved."
    PROMOTION_TO_VERIFY = "promotion.to_verify", "A promoted image waits until a user or a service has verified it."
    PROMOTION_VERIFYING = "promotion.verifying", "A promoted image was copied; its verification started."
    PROMOTION_VOTE_LAPSED = (
        "promotion.vote_lapsed",
        "An approval lapsed because a critical or high finding appeared after it.",
    )
    PROMOTION_VOTE_WITHDRAWN = "promotion.vote_withdrawn", "A person took back their own approval or objection."
    PROMOTION_WITHDRAWN = "promotion.withdrawn", "A promotion request was withdrawn."
    RELEASE_SET_APPROVED = "release_set.approved", "A person approved a release set: one vote on each member."
    RELEASE_SET_ATTEMPT_FAILED = (
        "release_set.attempt_failed",
        "A release set failed for a technical reason and was put back; it can be run again.",
    )
    RELEASE_SET_EXECUTING = "release_set.executing", "A release set was started."
    RELEASE_SET_EXPIRED = "release_set.expired", "A release set expired before it was approved or run."
    RELEASE_SET_FAILED = "release_set.failed", "A release set failed; all targets were put back to what they held."
    RELEASE_SET_OBJECTED = "release_set.objected", "A person objected to a release set."
    RELEASE_SET_OVERRULED = (
        "release_set.objection_overruled",
        "A user who manages the environment overruled an objection to a release set.",
    )
    RELEASE_SET_READY = "release_set.ready", "All members of a release set met every requirement."
    RELEASE_SET_REGRESSED = "release_set.regressed", "A member of a ready release set stopped meeting its requirements."
    RELEASE_SET_REJECTED = "release_set.rejected", "A person rejected a release set, with all its members."
    RELEASE_SET_REMINDED = "release_set.reminded", "The deadline of a release set is near."
    RELEASE_SET_REQUESTED = "release_set.requested", "A release set was requested: several repositories as one."
    RELEASE_SET_REVERTING = (
        "release_set.reverting",
        "A member of a release set failed; the targets are being put back to what they held.",
    )
    RELEASE_SET_SUCCEEDED = "release_set.succeeded", "A release set succeeded: the environment has every image of it."
    RELEASE_SET_SUPERSEDED = "release_set.superseded", "A rollback or break-glass took the place of a release set."
    RELEASE_SET_VOTE_WITHDRAWN = (
        "release_set.vote_withdrawn",
        "A person took back their own approval of, or objection to, a release set.",
    )
    RELEASE_SET_WITHDRAWN = "release_set.withdrawn", "A release set was withdrawn, with all its members."
    QUARANTINE_COPY_REMOVED = "quarantine.copy_removed", "A withdrawn image was deleted from a repository."
    QUARANTINE_COPY_RESTORED = "quarantine.copy_restored", "An image was put back into a repository after a quarantine."
    QUARANTINE_EXEMPTED = "quarantine.exempted", "A second person exempted an image from the quarantine of its base."
    QUARANTINE_PUSH_UNDONE = "quarantine.push_undone", "A push of a withdrawn image was undone."
    QUARANTINE_RELEASED = "quarantine.released", "A second person lifted a quarantine."
    QUARANTINE_WITHDRAWN = "quarantine.withdrawn", "A quarantine began to stop pulls too."
    QUARANTINE_RELEASE_REFUSED = "quarantine.release_refused", "A request to lift a quarantine was refused."
    QUARANTINE_RELEASE_REQUESTED = "quarantine.release_requested", "A person asked to lift a quarantine."
    REBUILD_CANCELLED = "rebuild.cancelled", "A rebuild wave was cancelled."
    REBUILD_CONFIRMED = "rebuild.confirmed", "A rebuild wave was confirmed and started."
    REBUILD_FINISHED = "rebuild.finished", "A rebuild wave finished."
    REBUILD_PLANNED = "rebuild.planned", "A rebuild wave was planned for a new base image."
    REBUILD_RETRIED = "rebuild.retried", "A failed rebuild wave was retried."
    REBUILD_SUPERSEDED = "rebuild.superseded", "A planned rebuild wave was replaced by a plan for a newer base image."
    RECIPE_CHANGED = "recipe.changed", "The build recipe of a repository was created or changed."
    REGISTRY_ADDED = "registry.added", "An admin added a registry to promote to."
    REGISTRY_COLLECTION_FAILED = (
        "registry.collection_failed",
        "The collector of the embedded registry was started and did not end well.",
    )
    REGISTRY_COLLECTED = "registry.collected", "The collector of the embedded registry freed unused layers."
    REGISTRY_CHANGED = "registry.changed", "An admin changed a registry, or our credentials for it."
    REGISTRY_REMOVED = "registry.removed", "An admin removed an unused registry, with our credentials for it."
    REPOSITORY_DESCRIBED = "repository.described", "The description of a repository was changed."
    REPOSITORY_ARCHIVED = "repository.archived", "A repository was archived, or restored."
    REPOSITORY_VISIBILITY_CHANGED = (
        "repository.visibility_changed",
        "Who can see and pull a repository without a grant was changed.",
    )
    REPOSITORY_DELETED = "repository.deleted", "A repository was deleted, with its images in the registry."
    REPOSITORY_DELETION_REQUESTED = "repository.deletion_requested", "The deletion of a repository was requested."
    REPOSITORY_MOVED = "repository.moved", "A repository was moved to another team."
    REPOSITORY_TAGS_PROTECTED = "repository.tags_protected", "The protected tag patterns of a repository were changed."
    RETENTION_CONFIRMED = "retention.confirmed", "A retention plan was confirmed. Its images are deleted by a job."
    RETENTION_FINISHED = "retention.finished", "The images of a retention plan were deleted, or kept after all."
    RETENTION_PLANNED = (
        "retention.planned",
        "A retention plan was made that accepts clusters which never reported what they run.",
    )
    RETENTION_RESTORED = "retention.restored", "A person asked to put back images that a retention plan deleted."
    RETENTION_RULES_CHANGED = "retention.rules_changed", "What a team or repository keeps was changed."
    ROBOT_CREATED = "robot.created", "A robot account was created."
    ROBOT_RETIRED = "robot.retired", "A robot account was retired."
    ROBOT_TAKEN_OVER = "robot.taken_over", "A person became responsible for a robot; its rights are bounded by theirs."
    ROLE_CHANGED = "role.changed", "The name or the verbs of a custom role were changed."
    ROLE_CREATED = "role.created", "A custom role was created."
    ROLE_DELETED = "role.deleted", "A custom role was deleted."
    SECOND_FACTOR_ADDED = "second_factor.added", "A person set up an authenticator app or a passkey."
    SECOND_FACTOR_CODES_MADE = "second_factor.codes_made", "A person got new recovery codes; the old ones ended."
    SECOND_FACTOR_CODE_USED = "second_factor.code_used", "A person used up a recovery code."
    SECOND_FACTOR_REFUSED = "second_factor.refused", "A second factor was wrong."
    SECOND_FACTOR_REMOVED = "second_factor.removed", "A person removed an authenticator app or a passkey."
    SECOND_FACTOR_RESET = "second_factor.reset", "An admin removed every second factor of an account."
    SECURITY_CHANGED = "security.changed", "An admin changed what sign-ins and approvals need."
    SESSION_CONFIRMED = "session.confirmed", "A person proved again, in a session, who they are."
    SESSION_ENDED = "session.ended", "A person signed out."
    SESSION_REFUSED = "session.refused", "A sign-in failed."
    SESSION_REVOKED = "session.revoked", "Browser sessions of an account were ended by its person or by an admin."
    SESSION_STARTED = "session.started", "A person signed in."
    SIGNING_KEY_CREATED = "signing_key.created", "A signing key was created or imported."
    SIGNING_KEY_RETIRED = "signing_key.retired", "A signing key was retired."
    SOURCE_CHANGED = "source.changed", "A trusted source was changed."
    SOURCE_CREATED = "source.created", "A trusted source was created."
    SOURCE_RETIRED = "source.retired", "A trusted source was retired."
    TAG_DELETED = "tag.deleted", "A tag was deleted in the registry."
    TAG_MOVE_REFUSED = "tag.move_refused", "A protected tag was moved without permission. The move is undone."
    TAG_NOT_MOVED_BACK = (
        "tag.not_moved_back",
        "A refused move of a protected tag could not be undone; the tag stays where it is.",
    )
    SIGN_IN_REFUSED = "sign_in.refused", "A sign-in with a provider was refused."
    SIGN_IN_POLICY_CHANGED = "sign_in.policy_changed", "An admin changed who can sign in with a password."
    SIGN_IN_PROVIDER_CHANGED = "sign_in.provider_changed", "A provider of sign-in was changed."
    SIGN_IN_PROVIDER_CREATED = "sign_in.provider_created", "A provider of sign-in was added."
    SIGN_IN_PROVIDER_DELETED = "sign_in.provider_deleted", "A provider was removed, with what its claims had given."
    SIGN_IN_RULE_CREATED = "sign_in.rule_created", "A rule from a claim to a group or role was added."
    SIGN_IN_RULE_DELETED = "sign_in.rule_deleted", "A rule from a claim to a group or role was removed."
    TEAM_REPOSITORIES_MOVED = "team.repositories_moved", "Repositories of a team were moved to another team."
    TEAM_CHANGED = "team.changed", "The name of a team was changed."
    TEAM_DELETED = "team.deleted", "A team without repositories was deleted, with its grants."
    TEAM_CREATED = "team.created", "A team was created."
    TOKEN_CREATED = "token.created", "An API token was created."
    TOKEN_EXCHANGED = "token.exchanged", "A CI job exchanged its identity token for a token of a robot."
    TOKEN_REPLACED = "token.replaced", "A token of a robot was replaced; the old one ends after an overlap."
    TOKEN_REVOKED = "token.revoked", "An API token was revoked."
    TRUST_RULE_CREATED = "trust_rule.created", "A rule was made by which CI jobs become a robot."
    TRUST_RULE_ENDED = "trust_rule.ended", "A rule by which CI jobs become a robot was ended; its tokens are revoked."
    USER_ADMIN_GRANTED = "user.admin_granted", "A user was made an admin."
    USER_ADMIN_REVOKED = "user.admin_revoked", "A user is no longer an admin."
    USER_CREATED = "user.created", "An account was created."
    USER_DEACTIVATED = "user.deactivated", "An account was deactivated."
    USER_LINK_USED = "user.link_used", "A person set their password with an invitation or a reset link."
    USER_MAIL_VERIFIED = "user.mail_verified", "An admin confirmed the mail of an account."
    USER_PASSWORD_CHANGED = "user.password_changed", "A person changed their password."
    USER_PASSWORD_RESET = "user.password_reset", "The password of an account was reset."
    USER_PROFILE_CHANGED = "user.profile_changed", "A person changed their name, mail or time zone."
    USER_REACTIVATED = "user.reactivated", "An account was reactivated."
    USER_UNLOCKED = "user.unlocked", "The failed sign-ins of an account were cleared."
    VEX_APPROVED = "vex.approved", "A second person approved a decision about a finding."
    VEX_DECIDED = "vex.decided", "A decision about a finding was made, and counts at once."
    VEX_DOCUMENT_ACCEPTED = "vex.document_accepted", "A second person accepted a VEX document: it counts."
    VEX_DOCUMENT_FOUND = "vex.document_found", "A VEX attestation of an image was found, or its trust changed."
    VEX_DOCUMENT_IMPORTED = "vex.document_imported", "A VEX document was sent."
    VEX_DOCUMENT_REPLACED = "vex.document_replaced", "A newer version of a VEX document took its place."
    VEX_DOCUMENT_WITHDRAWN = "vex.document_withdrawn", "A VEX document was withdrawn."
    VEX_EXPIRED = "vex.expired", "A decision about a finding reached its end: the finding is open again."
    VEX_FEED_ADDED = "vex.feed_added", "An address that VEX documents are read from was added."
    VEX_FEED_CHANGED = "vex.feed_changed", "A VEX feed was changed. With another source, it must be trusted again."
    VEX_FEED_DISTRUSTED = "vex.feed_distrusted", "Trust in a VEX feed was ended: what it says is advice."
    VEX_FEED_REMOVED = "vex.feed_removed", "A VEX feed was removed, and its documents withdrawn."
    VEX_FEED_SYNCED = "vex.feed_synced", "A VEX feed was read, and something was new, changed or gone."
    VEX_FEED_TRUSTED = "vex.feed_trusted", "A second person trusted a VEX feed: what it says counts."
    VEX_REJECTED = "vex.rejected", "A person rejected a decision about a finding."
    VEX_REQUESTED = "vex.requested", "A decision about a finding waits for a second person."
    VEX_WITHDRAWN = "vex.withdrawn", "A decision about a finding was ended before its time."
    WAIVER_APPROVED = "waiver.approved", "A second person approved a waiver."
    WAIVER_CLOSED = "waiver.closed", "A waiver ended by itself, because a fix shipped."
    WAIVER_ENDING = "waiver.ending", "A waiver ends in 14, 3 or 1 days."
    WAIVER_EXPIRED = "waiver.expired", "A waiver reached its end."
    WAIVER_REJECTED = "waiver.rejected", "A person rejected a waiver."
    WAIVER_REQUESTED = "waiver.requested", "A waiver of a rule was requested."
    WAIVER_REVOKED = "waiver.revoked", "A waiver was ended before its time."
    WATCH_ADDED = "watch.added", "A watch was added: moves of a tag propose a rebuild wave."
    WATCH_REMOVED = "watch.removed", "A watch on a tag was removed."
