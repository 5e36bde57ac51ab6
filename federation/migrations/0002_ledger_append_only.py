"""The database refuses to change or delete what the ledger holds."""

from django.db import migrations

from federation import ledger_guard


def forwards(apps, schema_editor):
    ledger_guard.install(schema_editor.connection)


def backwards(apps, schema_editor):
    ledger_guard.remove(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("federation", "0001_initial")]
    operations = [migrations.RunPython(forwards, backwards)]
