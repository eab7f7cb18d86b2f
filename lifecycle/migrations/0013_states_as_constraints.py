"""Job kinds are named in code. The database refuses states without what belongs to them.

Each constraint is added without a look at the rows, which needs no long lock; the next migration checks them.
"""

from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models
from django.db.models import Q

# Rows of versions that ended a job in two statements, between which a process may have died.
_REPAIR = """
UPDATE lifecycle_job SET finished_at = coalesce(finished_at, started_at, created_at)
WHERE finished_at IS NULL AND state IN ('succeeded', 'failed', 'cancelled');
UPDATE lifecycle_job SET finished_at = NULL WHERE finished_at IS NOT NULL AND state IN ('waiting', 'running');
UPDATE lifecycle_rebuildwave SET finished_at = coalesce(confirmed_at, created_at)
WHERE finished_at IS NULL AND state IN ('succeeded', 'failed', 'cancelled');
UPDATE lifecycle_rebuildwave SET finished_at = NULL WHERE finished_at IS NOT NULL AND state IN ('planned', 'running');
UPDATE lifecycle_rebuildjob job SET finished_at = coalesce(job.started_at, wave.created_at)
FROM lifecycle_rebuildwave wave
WHERE wave.id = job.wave_id AND job.finished_at IS NULL
  AND job.state IN ('done', 'unchanged', 'failed', 'blocked', 'cancelled');
UPDATE lifecycle_rebuildjob SET finished_at = NULL
WHERE finished_at IS NOT NULL AND state IN ('waiting', 'building', 'scanning');
"""


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0012_package_versions_by_all_that_is_said")]

    operations = [
        migrations.AlterField(model_name="job", name="kind", field=models.CharField(max_length=12)),
        migrations.RunSQL(_REPAIR, migrations.RunSQL.noop),
        AddConstraintNotValid(
            model_name="job",
            constraint=models.CheckConstraint(
                condition=Q(finished_at=None, state__in=("waiting", "running"))
                | Q(finished_at__isnull=False, state__in=("succeeded", "failed", "cancelled")),
                name="job_finished_exactly_when_final",
            ),
        ),
        AddConstraintNotValid(
            model_name="rebuildwave",
            constraint=models.CheckConstraint(
                condition=Q(finished_at=None, state__in=("planned", "running"))
                | Q(finished_at__isnull=False, state__in=("succeeded", "failed", "cancelled")),
                name="rebuildwave_finished_exactly_when_ended",
            ),
        ),
        AddConstraintNotValid(
            model_name="rebuildwave",
            constraint=models.CheckConstraint(
                condition=Q(state="planned", confirmed_by=None)
                | Q(state="cancelled")
                | Q(confirmed_by__isnull=False, state__in=("running", "succeeded", "failed")),
                name="rebuildwave_confirmed_before_it_runs",
            ),
        ),
        AddConstraintNotValid(
            model_name="rebuildjob",
            constraint=models.CheckConstraint(
                condition=Q(finished_at=None, state__in=("waiting", "building", "scanning"))
                | Q(finished_at__isnull=False, state__in=("done", "unchanged", "failed", "blocked", "cancelled")),
                name="rebuildjob_finished_exactly_when_ended",
            ),
        ),
        AddConstraintNotValid(
            model_name="rebuildjob",
            constraint=models.CheckConstraint(
                condition=Q(new_image__isnull=False) | ~Q(state__in=("scanning", "done", "unchanged")),
                name="rebuildjob_result_has_an_image",
            ),
        ),
    ]
