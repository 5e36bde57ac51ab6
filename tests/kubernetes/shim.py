"""Runs one container as a process of this host and outlives the kubelet, as containerd's does.

    python shim.py FOLDER

FOLDER/container.json: argv, env, mounts [[source, target, read-only]], end (a file or ""). Writes
running.json (process ids, start), log (each line with its time stamp) and, last, ended.json.

The command is process 1 of its own process and mount namespaces, so that ending it ends all of it
and paths are the container's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

SET_UP = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir -p "$2"; else mkdir -p "${2%/*}"; [ -e "$2" ] || : >"$2"; fi
  mount --bind "$1" "$2"
  [ "$3" = rw ] || mount -o remount,ro,bind "$2"
  shift 3
done
shift
cd /
exec env -i "$@"
"""


def main(folder: Path) -> None:
    spec = json.loads((folder / "container.json").read_text())
    mounts = [word for mount in spec["mounts"] for word in mount]
    env = [f"{name}={value}" for name, value in spec["env"].items()]
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    words = [
        "unshare",
        *user,
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "sh",
        "-c",
        SET_UP,
        "sh",
    ]
    process = subprocess.Popen(
        [*words, *mounts, "--", *env, *spec["argv"]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    write(folder / "running.json", {"shim": os.getpid(), "unshare": process.pid, "at": time.time()})
    assert process.stdout is not None
    with (folder / "log").open("ab", buffering=0) as log:
        copy(process.stdout, log)
    code = process.wait()
    code = code if code >= 0 else 128 - code
    write(folder / "ended.json", {"code": code, "at": time.time()})


def copy(source: IO[bytes], log: IO[bytes]) -> None:
    """Whole lines with their time; what has no newline at the end goes out as it is."""
    for line in source:
        nano = time.time_ns()
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(nano // 10**9))
        log.write(f"{second}.{nano % 10**9:09d}Z ".encode() + line)


def write(path: Path, value: object) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(value))
    os.replace(draft, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
