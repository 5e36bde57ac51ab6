"""`python -m federation.affinity`: how fast jobs run, from samples; and how to split them.

Exit 0: done. 2: a table, a document or the command line is refused; one line per problem on
standard error, nothing written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from federation.affinity.fit_commands import add_commands
from federation.affinity.planner.command_line import add_command as add_plan
from federation.affinity.samples import BadSamples

# each adds sub-commands whose default `run` takes the parsed arguments and returns the exit code
COMMANDS = (add_commands, add_plan)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m federation.affinity",
        description="Fit throughput models to samples, forecast with them, plan.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    asked = parser.parse_args(argv)
    try:
        return int(asked.run(asked))
    except BadSamples as refused:
        sys.stderr.write(f"{refused}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
