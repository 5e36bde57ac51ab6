"""The highest GPU-seconds told under each contract, for those on record: what was told before it
came to, and its own."""

from typing import Any

from django.db import migrations, models
from django.db.models import OuterRef, Subquery, Sum


def sum_up(apps: Any, schema_editor: Any) -> None:
    contracts = apps.get_model("federation", "Contract").objects.using(schema_editor.connection.alias)
    earlier = contracts.filter(lease=OuterRef("lease"), sequence__lte=OuterRef("sequence"))
    total = earlier.order_by().values("lease").annotate(total=Sum("gpu_seconds")).values("total")
    contracts.filter(gpu_seconds__gt=0).update(gpu_seconds_told=Subquery(total))


class Migration(migrations.Migration):

    dependencies = [
        ('federation', '0009_priors_forgetting'),
    ]

    operations = [
        migrations.AddField(
            model_name='contract',
            name='gpu_seconds_told',
            field=models.FloatField(default=0.0),
        ),
        migrations.RunPython(sum_up, migrations.RunPython.noop),
    ]
