"""Job files: YAML in, `JobDraft`s out, or every problem with its line.

`load` is the one way in; `JobDraft.body()` is what POST /api/v1/jobs takes.
"""

from hanse.jobfile.document import MAX_BYTES
from hanse.jobfile.draft import JobDraft
from hanse.jobfile.native import load

__all__ = ["MAX_BYTES", "JobDraft", "load"]
