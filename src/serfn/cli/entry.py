"""The `serfn` command as it is installed: nothing is imported before an interrupt is handled."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def entry_point() -> None:
    """Run the command of this process.

    Parts of one's own are named `package.module:Class`; those of the working directory are found as by
    `python -m`.
    """
    try:
        import os

        sys.path.insert(0, os.getcwd())
        from serfn.cli.main import main

        status = main()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status)
