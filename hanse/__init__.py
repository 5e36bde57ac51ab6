"""What tenants import: `hanse.report(...)` in a training loop, the client, job files, the command.

Importing this package costs the standard library only.
"""

from hanse.report import checkpoint_dir, is_probe, report, samples_done, samples_wanted

__all__ = ["checkpoint_dir", "is_probe", "report", "samples_done", "samples_wanted"]
