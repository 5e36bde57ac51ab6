"""The guards' program, put into the shared folder: nodes need Python, not the agent.

One folder for each version of it, so that running jobs keep theirs when the agent is upgraded.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

import agents

FILES = (
    "agents/__init__.py",
    "agents/drivers/__init__.py",
    "agents/drivers/guard.py",
    "agents/drivers/jsonfile.py",
    "agents/drivers/processes.py",
    "agents/drivers/slurm/__init__.py",
    "agents/drivers/slurm/fence.py",
    "agents/drivers/slurm/stamps.py",
    "agents/drivers/slurm/watch.py",
)
BATCH = """#!{python} -IS
import sys
sys.path.insert(0, sys.argv[1])
from agents.drivers.slurm.watch import main
sys.exit(main(sys.argv[2], sys.argv[3]))
"""


def install(shared: Path, *, python: Path) -> Path:
    """The folder that holds it, complete; whoever else installs it meanwhile is no harm."""
    source = Path(agents.__file__).resolve().parent.parent
    files = {name: (source / name).read_bytes() for name in FILES}
    files["batch.py"] = BATCH.format(python=python).encode()
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
    code = shared / f"code-{digest}"
    if not code.is_dir():
        draft = Path(tempfile.mkdtemp(prefix=".code-", dir=shared))
        for name, data in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(data)
        (draft / "batch.py").chmod(stat.S_IRWXU)
        try:
            os.rename(draft, code)
        except OSError:
            shutil.rmtree(draft)
    return code
