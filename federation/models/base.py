"""Fields that most tables share, and check constraints made from a life cycle's table."""

from __future__ import annotations

import uuid
from typing import Any

from django.core.validators import RegexValidator
from django.db import models

from federation.machines.base import Machine

#: Names people type and read in logs, commands and paths: nothing a shell or a path would mind.
NAME_PATTERN = r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}\Z"
name_validator = RegexValidator(
    NAME_PATTERN, "letters, digits, dot, dash and underscore; at most 63, first a letter or digit"
)


class Identified(models.Model):
    """A row with an id that nobody can guess and a time of birth."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        abstract = True


def name_field(**options: Any) -> models.CharField[str, str]:
    return models.CharField(max_length=63, validators=[name_validator], **options)


def state_field(machine: Machine[Any], initial: str) -> models.CharField[str, str]:
    """A state column: its words come from the machine."""
    return models.CharField(
        max_length=16, choices=machine.choices(), default=initial, db_index=True
    )


def state_constraint(machine: Machine[Any]) -> models.CheckConstraint:
    """The database itself refuses a state that the machine does not know."""
    return models.CheckConstraint(
        condition=models.Q(state__in=[s.value for s in machine.states]),
        name=f"{machine.name}_state_is_known",
    )
