"""The unreadable ranges of a feed, found without reading all of its intervals; and the check of 0017 on stored rows."""

from django.contrib.postgres.operations import AddIndexConcurrently, ValidateConstraint
from django.db import migrations, models
from django.db.models import Q

# Until a synchronisation reads the records again, such a range may affect every version.
_STATE_THE_PROBLEM = """
UPDATE lifecycle_affectedinterval
SET problem = left('an affected range cannot be read: ' || low_text, 300), low_text = ''
WHERE is_unevaluated AND problem = ''
"""


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("lifecycle", "0017_unknown_matches")]

    operations = [
        AddIndexConcurrently(
            "affectedinterval",
            models.Index(fields=("advisory",), condition=Q(is_unevaluated=True), name="affectedinterval_unevaluated"),
        ),
        migrations.RunSQL(_STATE_THE_PROBLEM, migrations.RunSQL.noop),
        ValidateConstraint("match", "match_unknown_has_a_reason_and_no_fix"),
    ]
