"""What tenants import: `hanse.report(...)` in a training loop, the client, job files, the command.

Importing this package costs the standard library only.
"""

from hanse.report import report

__all__ = ["report"]
