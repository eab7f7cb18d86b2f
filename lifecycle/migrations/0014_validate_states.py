"""Check the rows that stood before the constraints of 0013, under a lock that lets reads and writes go on."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0013_states_as_constraints")]

    operations = [
        ValidateConstraint("job", "job_finished_exactly_when_final"),
        ValidateConstraint("rebuildwave", "rebuildwave_finished_exactly_when_ended"),
        ValidateConstraint("rebuildwave", "rebuildwave_confirmed_before_it_runs"),
        ValidateConstraint("rebuildjob", "rebuildjob_finished_exactly_when_ended"),
        ValidateConstraint("rebuildjob", "rebuildjob_result_has_an_image"),
    ]
