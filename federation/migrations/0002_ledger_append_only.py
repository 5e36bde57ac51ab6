"""The database refuses to change or delete what the ledger holds."""

from typing import Any

from django.db import migrations

from federation import ledger_guard


def forwards(apps: Any, schema_editor: Any) -> None:
    ledger_guard.install(schema_editor.connection)


def backwards(apps: Any, schema_editor: Any) -> None:
    ledger_guard.remove(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("federation", "0001_initial")]
    operations = [migrations.RunPython(forwards, backwards)]
