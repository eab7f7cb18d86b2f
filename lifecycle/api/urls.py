"""URLs of `/api/v1/`, including its OpenAPI document."""

from __future__ import annotations

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from lifecycle.api import authority, groups, keyless, people
from lifecycle.api.access import AccessRequestViewSet, EffectiveView, RoleWhatIfView
from lifecycle.api.access_file import (
    AccessFileSchemaView,
    AccessFileView,
    ApplyAccessFileView,
    CompareAccessFileView,
)
from lifecycle.api.admission import (
    AdmissionDebtsView,
    ClusterBundleView,
    ClusterForecastView,
    ClusterManifestView,
    ExplainClusterView,
    ReviewDebtView,
)
from lifecycle.api.advisories import AdvisoryImagesView, AdvisoryView
from lifecycle.api.alerts import AlertViewSet
from lifecycle.api.anchors import AnchorViewSet, LogStatusView
from lifecycle.api.audit import AuditEventViewSet
from lifecycle.api.channels import ChannelViewSet, MessageViewSet
from lifecycle.api.clusters import ClusterViewSet
from lifecycle.api.contents import ImageContentsView
from lifecycle.api.due_dates import DueDatesView, DueWhatIfView
from lifecycle.api.environments import EnvironmentViewSet
from lifecycle.api.external_checks import ExternalCheckViewSet
from lifecycle.api.feeds import FeedViewSet
from lifecycle.api.findings import FindingsExportView
from lifecycle.api.fixes import FixAssignView, FixCommentView, FixesView, FixSnoozeView, FixView, FixWakeView
from lifecycle.api.gates import HoldViewSet, WindowViewSet
from lifecycle.api.isolation import IsolationCheckView
from lifecycle.api.jobs import JobViewSet
from lifecycle.api.lineage import LineageView
from lifecycle.api.me import MeView
from lifecycle.api.notices import MuteViewSet, NoticePreferencesView, NoticeViewSet, TestMailView
from lifecycle.api.pentests import ImagePentestsView, PentestFindingViewSet, PentestRunViewSet
from lifecycle.api.policies import (
    CasesView,
    CatalogueView,
    PoliciesView,
    PolicyRevisionsView,
    PolicyView,
    TryView,
    VerdictView,
    WhatIfView,
)
from lifecycle.api.private_advisories import PrivateAdvisoryViewSet
from lifecycle.api.promotion import PromotionViewSet
from lifecycle.api.quarantine import QuarantineViewSet
from lifecycle.api.rebuild import (
    RecipeView,
    RepositoryBuilderView,
    TeamBuilderView,
    WatchesView,
    WatchView,
    WaveViewSet,
)
from lifecycle.api.registries import RegistryViewSet
from lifecycle.api.registry import ImageViewSet, MetadataView, RepositoryViewSet
from lifecycle.api.release_sets import ReleaseSetViewSet
from lifecycle.api.retention import RetentionPlanViewSet, RetentionRulesView
from lifecycle.api.running import ClusterReportsView, ClusterReportView, ImageRuntimeView, RunningViewSet
from lifecycle.api.sboms import ImageSbomsView, ImageSbomView, ImageSbomWithdrawView, ScanView
from lifecycle.api.schema import SchemaView
from lifecycle.api.search import SearchView
from lifecycle.api.security import SecurityView
from lifecycle.api.sign_in import (
    SignInEffectsView,
    SignInPolicyView,
    SignInPreviewView,
    SignInProvidersView,
    SignInProviderTestView,
    SignInProviderView,
    SignInRulesView,
    SignInRuleView,
)
from lifecycle.api.signing_keys import SigningKeyViewSet
from lifecycle.api.trends import TrendsView
from lifecycle.api.trust import ImageSignaturesView, SourcesView, SourceView
from lifecycle.api.vex import VexDocumentViewSet, VexStatementViewSet
from lifecycle.api.vex_feeds import VexFeedViewSet
from lifecycle.api.waivers import WaiverViewSet

router = SimpleRouter()
router.register("images", ImageViewSet, basename="image")
router.register("repositories", RepositoryViewSet, basename="repository")
router.register("access-requests", AccessRequestViewSet, basename="accessrequest")
router.register("feeds", FeedViewSet, basename="feed")
router.register("registries", RegistryViewSet, basename="registry")
router.register("environments", EnvironmentViewSet, basename="environment")
router.register("clusters", ClusterViewSet, basename="cluster")
router.register("windows", WindowViewSet, basename="window")
router.register("holds", HoldViewSet, basename="hold")
router.register("promotions", PromotionViewSet, basename="promotion")
router.register("release-sets", ReleaseSetViewSet, basename="releaseset")
router.register("rebuild-waves", WaveViewSet, basename="rebuildwave")
router.register("audit-events", AuditEventViewSet, basename="auditevent")
router.register("audit-anchors", AnchorViewSet, basename="auditanchor")
router.register("private-advisories", PrivateAdvisoryViewSet, basename="privateadvisory")
router.register("alerts", AlertViewSet, basename="alert")
router.register("running", RunningViewSet, basename="running")
router.register("quarantines", QuarantineViewSet, basename="quarantine")
router.register("signing-keys", SigningKeyViewSet, basename="signingkey")
router.register("pentest-runs", PentestRunViewSet, basename="pentestrun")
router.register("pentest-findings", PentestFindingViewSet, basename="pentestfinding")
router.register("retention-plans", RetentionPlanViewSet, basename="retentionplan")
router.register("waivers", WaiverViewSet, basename="waiver")
router.register("vex/statements", VexStatementViewSet, basename="vexstatement")
router.register("vex/documents", VexDocumentViewSet, basename="vexdocument")
router.register("vex/feeds", VexFeedViewSet, basename="vexfeed")
router.register("jobs", JobViewSet, basename="job")
router.register("notices", NoticeViewSet, basename="notice")
router.register("channels", ChannelViewSet, basename="channel")
router.register("external-checks", ExternalCheckViewSet, basename="externalcheck")
router.register("messages", MessageViewSet, basename="message")
router.register("notice-mutes", MuteViewSet, basename="noticemute")

app_name = "api"
urlpatterns = [
    path("schema/", SchemaView.as_view(), name="schema"),
    path("me/", MeView.as_view(), name="me"),
    path("repositories/<int:repository_id>/metadata/", MetadataView.as_view(), name="repository-metadata"),
    path("repositories/<int:repository_id>/recipe/", RecipeView.as_view(), name="repository-recipe"),
    path("repositories/<int:repository_id>/builder/", RepositoryBuilderView.as_view(), name="repository-builder"),
    path("repositories/<int:repository_id>/watches/", WatchesView.as_view(), name="repository-watches"),
    path("repositories/<int:repository_id>/watches/<int:watch_id>/", WatchView.as_view(), name="repository-watch"),
    path("repositories/<int:repository>/retention/", RetentionRulesView.as_view(), name="repository-retention"),
    path("teams/<slug:team>/retention/", RetentionRulesView.as_view(), name="team-retention"),
    path("images/<str:digest>/lineage/", LineageView.as_view(), name="image-lineage"),
    path("images/<str:digest>/signatures/", ImageSignaturesView.as_view(), name="image-signatures"),
    path("images/<str:digest>/pentests/", ImagePentestsView.as_view(), name="image-pentests"),
    path("images/<str:digest>/contents/", ImageContentsView.as_view(), name="image-contents"),
    path("images/<str:digest>/sboms/", ImageSbomsView.as_view(), name="image-sboms"),
    path("images/<str:digest>/sboms/<int:sbom_id>/", ImageSbomView.as_view(), name="image-sbom"),
    path(
        "images/<str:digest>/sboms/<int:sbom_id>/withdraw/",
        ImageSbomWithdrawView.as_view(),
        name="image-sbom-withdraw",
    ),
    path("images/<str:digest>/runtime/", ImageRuntimeView.as_view(), name="image-runtime"),
    path("clusters/<slug:slug>/reports/", ClusterReportsView.as_view(), name="cluster-reports"),
    path("clusters/<slug:slug>/reports/<path:report_id>/", ClusterReportView.as_view(), name="cluster-report"),
    path("scan/", ScanView.as_view(), name="scan"),
    path("trusted-sources/", SourcesView.as_view(), name="trusted-sources"),
    path("trusted-sources/<int:source_id>/", SourceView.as_view(), name="trusted-source"),
    path("images/<str:digest>/verdict/", VerdictView.as_view(), name="image-verdict"),
    path("policies/", PoliciesView.as_view(), name="policies"),
    path("policies/catalogue/", CatalogueView.as_view(), name="policy-catalogue"),
    path("policies/what-if/", WhatIfView.as_view(), name="policy-what-if"),
    path("policies/test/", CasesView.as_view(), name="policy-test"),
    path("policies/try/", TryView.as_view(), name="policy-try"),
    path("policies/<str:scope>/", PolicyView.as_view(), name="policy"),
    path("policies/<str:scope>/revisions/", PolicyRevisionsView.as_view(), name="policy-revisions"),
    path("clusters/<slug:slug>/debts/", AdmissionDebtsView.as_view(), name="cluster-debts"),
    path("clusters/<slug:slug>/debts/<int:pk>/review/", ReviewDebtView.as_view(), name="cluster-debt-review"),
    path("clusters/<slug:slug>/explain/", ExplainClusterView.as_view(), name="cluster-explain"),
    path("clusters/<slug:slug>/forecast/", ClusterForecastView.as_view(), name="cluster-forecast"),
    path("clusters/<slug:slug>/bundle/", ClusterBundleView.as_view(), name="cluster-bundle"),
    path("clusters/<slug:slug>/manifest/", ClusterManifestView.as_view(), name="cluster-manifest"),
    path("teams/", authority.TeamsView.as_view(), name="teams"),
    path("teams/<slug:team>/", authority.TeamView.as_view(), name="team"),
    path("teams/<slug:team>/move-repositories/", authority.TeamMoveView.as_view(), name="team-move-repositories"),
    path("teams/<slug:team>/grants/", authority.GrantsView.as_view(), name="team-grants"),
    path("teams/<slug:team>/grants/<int:grant_id>/", authority.GrantView.as_view(), name="team-grant"),
    path("teams/<slug:team>/robots/", authority.RobotsView.as_view(), name="team-robots"),
    path("teams/<slug:team>/robots/<int:robot_id>/", authority.RobotView.as_view(), name="team-robot"),
    path(
        "teams/<slug:team>/robots/<int:robot_id>/take-over/",
        authority.RobotTakeOverView.as_view(),
        name="robot-take-over",
    ),
    path("teams/<slug:team>/robots/<int:robot_id>/tokens/", authority.RobotTokensView.as_view(), name="robot-tokens"),
    path(
        "teams/<slug:team>/robots/<int:robot_id>/tokens/<int:token_id>/",
        authority.RobotTokenView.as_view(),
        name="robot-token",
    ),
    path(
        "teams/<slug:team>/robots/<int:robot_id>/trust-rules/",
        keyless.TrustRulesView.as_view(),
        name="robot-trust-rules",
    ),
    path(
        "teams/<slug:team>/robots/<int:robot_id>/trust-rules/<int:rule_id>/",
        keyless.TrustRuleView.as_view(),
        name="robot-trust-rule",
    ),
    path(
        "teams/<slug:team>/robots/<int:robot_id>/trust-rules/<int:rule_id>/try/",
        keyless.TryTrustRuleView.as_view(),
        name="robot-trust-rule-try",
    ),
    path("teams/<slug:team>/environments/", authority.TeamEnvironmentsView.as_view(), name="team-environments"),
    path("teams/<slug:team>/builder/", TeamBuilderView.as_view(), name="team-builder"),
    path("teams/<slug:team>/explain/", authority.ExplainView.as_view(), name="team-explain"),
    path("groups/", groups.GroupsView.as_view(), name="groups"),
    path("groups/<int:group_id>/", groups.GroupView.as_view(), name="group"),
    path("groups/<int:group_id>/members/", groups.GroupMembersView.as_view(), name="group-members"),
    path("groups/<int:group_id>/members/<int:member_id>/", groups.GroupMemberView.as_view(), name="group-member"),
    path("sign-in/policy/", SignInPolicyView.as_view(), name="sign-in-policy"),
    path("sign-in/providers/", SignInProvidersView.as_view(), name="sign-in-providers"),
    path("sign-in/providers/<slug:slug>/", SignInProviderView.as_view(), name="sign-in-provider"),
    path("sign-in/providers/<slug:slug>/test/", SignInProviderTestView.as_view(), name="sign-in-provider-test"),
    path("sign-in/providers/<slug:slug>/preview/", SignInPreviewView.as_view(), name="sign-in-preview"),
    path("sign-in/providers/<slug:slug>/effects/", SignInEffectsView.as_view(), name="sign-in-effects"),
    path("sign-in/providers/<slug:slug>/rules/", SignInRulesView.as_view(), name="sign-in-rules"),
    path("sign-in/providers/<slug:slug>/rules/<int:rule_id>/", SignInRuleView.as_view(), name="sign-in-rule"),
    path("roles/", authority.RolesView.as_view(), name="roles"),
    path("access/file/", AccessFileView.as_view(), name="access-file"),
    path("access/file/schema/", AccessFileSchemaView.as_view(), name="access-file-schema"),
    path("access/file/diff/", CompareAccessFileView.as_view(), name="access-file-diff"),
    path("access/file/apply/", ApplyAccessFileView.as_view(), name="access-file-apply"),
    path("access/effective/", EffectiveView.as_view(), name="access-effective"),
    path("roles/<slug:role>/what-if/", RoleWhatIfView.as_view(), name="role-what-if"),
    path("roles/<slug:role>/", authority.RoleView.as_view(), name="role"),
    path("security/", SecurityView.as_view(), name="security"),
    path("people/", people.PeopleView.as_view(), name="people"),
    path("people/<int:person_id>/", people.PersonView.as_view(), name="person"),
    path("people/<int:person_id>/reset-password/", people.PersonPasswordView.as_view(), name="person-password"),
    path("people/<int:person_id>/deactivate/", people.PersonDeactivateView.as_view(), name="person-deactivate"),
    path("people/<int:person_id>/reactivate/", people.PersonReactivateView.as_view(), name="person-reactivate"),
    path("people/<int:person_id>/verify-mail/", people.PersonMailView.as_view(), name="person-mail"),
    path("people/<int:person_id>/sessions/", people.PersonSessionsView.as_view(), name="person-sessions"),
    path("people/<int:person_id>/second-factors/", people.PersonFactorsView.as_view(), name="person-factors"),
    path("people/<int:person_id>/admin/", people.PersonAdminView.as_view(), name="person-admin"),
    path("notice-preferences/", NoticePreferencesView.as_view(), name="notice-preferences"),
    path("notice-preferences/test-mail/", TestMailView.as_view(), name="notice-test-mail"),
    path("advisories/<str:osv_id>/", AdvisoryView.as_view(), name="advisory"),
    path("advisories/<str:osv_id>/images/", AdvisoryImagesView.as_view(), name="advisory-images"),
    path("due-dates/", DueDatesView.as_view(), name="due-dates"),
    path("due-dates/what-if/", DueWhatIfView.as_view(), name="due-dates-what-if"),
    path("trends/", TrendsView.as_view(), name="trends"),
    path("audit-log/", LogStatusView.as_view(), name="audit-log-status"),
    path("findings/exports/<str:kind>/", FindingsExportView.as_view(), name="findings-export"),
    path("fixes/", FixesView.as_view(), name="fixes"),
    path("fixes/<str:key>/", FixView.as_view(), name="fix"),
    path("fixes/<str:key>/assign/", FixAssignView.as_view(), name="fix-assign"),
    path("fixes/<str:key>/snooze/", FixSnoozeView.as_view(), name="fix-snooze"),
    path("fixes/<str:key>/wake/", FixWakeView.as_view(), name="fix-wake"),
    path("fixes/<str:key>/comment/", FixCommentView.as_view(), name="fix-comment"),
    path("isolation/check/", IsolationCheckView.as_view(), name="isolation-check"),
    path("search/", SearchView.as_view(), name="search"),
    path("tokens/", authority.TokensView.as_view(), name="tokens"),
    path("tokens/<int:token_id>/", authority.TokenView.as_view(), name="token"),
    path("", include(router.urls)),
]
