"""Every entry group is linked to the chain of its currency; the guards cover the new records."""

from typing import Any

from django.db import migrations

from federation import ledger_guard, ledger_rows


#: groups by their first entry: its number tells the order in which purses were moved
POSTED = """
SELECT g.id, g.currency, (SELECT min(e.id) FROM federation_entry e WHERE e.group_id = g.id) AS first
FROM federation_entrygroup g
"""


def forwards(apps: Any, schema_editor: Any) -> None:
    """Make the guards anew (a table that SQLite rebuilt has lost them), then link what is there."""
    connection = schema_editor.connection
    ledger_guard.install(connection)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT hanse_ledger_link(currency, array_agg(id ORDER BY first)) "
                f"FROM ({POSTED}) posted GROUP BY currency ORDER BY currency"
            )
            return
        cursor.execute(f"{POSTED} ORDER BY first")
        ids = [row[0] for row in cursor.fetchall()]
    ledger_rows.link(connection, ids)


def backwards(apps: Any, schema_editor: Any) -> None:
    """The guards go first, so that the tables can change."""
    ledger_guard.remove(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("federation", "0005_sharing_and_settlement")]
    operations = [migrations.RunPython(forwards, backwards)]
