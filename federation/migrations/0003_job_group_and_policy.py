"""The group of a job, the policy of a venue, and rounds that still owe explanations."""

from typing import Any

from django.db import migrations, models

import federation.models.venues
from federation.grouping import Traits, group_of

BATCH = 1000  # rows in one statement
TRAITS = (
    *("tenant__member_id", "job_class_id", "kind", "gpus"),
    *("gpu_kinds", "sites_allow", "sites_deny", "pools"),
)


def fill_groups(apps: Any, schema_editor: Any) -> None:
    """Give every job that can still bid its group, some statements for each thousand."""
    jobs = apps.get_model("federation", "Job").objects.using(schema_editor.connection.alias)
    rows = jobs.filter(ended_at__isnull=True, group="").order_by("id")
    last = None
    while True:
        ahead = rows if last is None else rows.filter(id__gt=last)
        batch = [
            jobs.model(id=job_id, group=group_of(Traits(*traits)))
            for job_id, *traits in ahead.values_list("id", *TRAITS)[:BATCH]
        ]
        if not batch:
            return
        jobs.bulk_update(batch, ["group"], batch_size=BATCH)
        last = batch[-1].id


class Migration(migrations.Migration):
    dependencies = [("federation", "0002_ledger_append_only")]
    operations = [
        migrations.AddField(
            model_name="job",
            name="group",
            field=models.CharField(blank=True, default="", editable=False, max_length=32),
        ),
        migrations.AddField(
            model_name="round",
            name="explanations_due",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="venue",
            name="policy",
            field=models.CharField(
                choices=federation.models.venues.policy_choices,
                default="surplus",
                help_text="What a round aims at.",
                max_length=32,
            ),
        ),
        migrations.AddField(
            model_name="venue",
            name="policy_parameters",
            field=models.JSONField(
                blank=True, default=dict, help_text="The policy's own numbers, by name."
            ),
        ),
        migrations.AddIndex(
            model_name="round",
            index=models.Index(
                condition=models.Q(("explanations_due", True)),
                fields=["cleared_at"],
                name="round_owes_explanations",
            ),
        ),
        migrations.RunPython(fill_groups, migrations.RunPython.noop),
    ]
