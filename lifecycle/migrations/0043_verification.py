"""Who verifies a promotion after its copy, and until when."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0006_profiles_and_links"),
        ("lifecycle", "0042_channels"),
    ]

    operations = [
        migrations.AddField(
            model_name="environment",
            name="rolls_back",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="environment",
            name="verification",
            field=models.CharField(
                choices=[("none", "None"), ("manual", "Manual"), ("http", "Http")], default="none", max_length=6
            ),
        ),
        migrations.AddField(
            model_name="environment",
            name="verify_secret_sealed",
            field=models.BinaryField(default=b""),
        ),
        migrations.AddField(
            model_name="environment",
            name="verify_url",
            field=models.CharField(blank=True, max_length=500),
        ),
        migrations.AddField(
            model_name="environment",
            name="verify_within_s",
            field=models.PositiveIntegerField(default=3600),
        ),
        migrations.AddField(
            model_name="promotionrequest",
            name="verify_by",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddConstraint(
            model_name="environment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("verification__in", ("none", "manual")),
                    models.Q(("verification", "http"), models.Q(("verify_url", ""), _negated=True)),
                    _connector="OR",
                ),
                name="environment_verification_known_and_complete",
            ),
        ),
    ]
