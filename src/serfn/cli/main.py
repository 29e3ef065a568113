"""Entry point: chooses the command, and turns every expected failure into one line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from serfn.cli.collect import collect
from serfn.cli.data import DATA
from serfn.cli.doctor import doctor
from serfn.cli.entry import INTERRUPTED
from serfn.cli.evaluate import evaluate
from serfn.cli.info import info
from serfn.cli.parsing import Commands, parse
from serfn.cli.plan import plan
from serfn.cli.report import report
from serfn.cli.robot import ROBOT
from serfn.cli.study import study
from serfn.cli.teacher import teacher
from serfn.cli.train import train
from serfn.core.errors import SerfnError

BAD_INPUT = 2
PIPE_CLOSED = 141

COMMANDS: Commands = {
    "collect": collect,
    "train": train,
    "plan": plan,
    "evaluate": evaluate,
    "report": report,
    "doctor": doctor,
    "study": study,
    "info": info,
    "teacher": teacher,
    "data": DATA,
    "robot": ROBOT,
}

DESCRIPTION = (
    "Fine-tune normalizing-flow policies over action chunks, from demonstrations to a better policy. "
    "'serfn train' runs all four stages; 'serfn COMMAND --help' explains the options of a command."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or one of the constants of this module.

    Args:
        arguments: Words after `serfn`; None takes those of the process.
    """
    try:
        parse(COMMANDS, DESCRIPTION, arguments)()
    except SerfnError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # Whoever read the output has read enough; flushing the rest at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:
        # A path given by the user that is missing, a folder instead of a file, or not writable.
        if error.filename is None:
            raise
        return _fail(f"'{error.filename}': {error.strerror}; check the path and its permissions")
    except KeyboardInterrupt as interrupt:
        print("\n" + "; ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        return INTERRUPTED
    except SystemExit as end:
        # The argument parser has printed its help.
        return end.code if isinstance(end.code, int) else BAD_INPUT
    return 0


def _fail(message: str) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return BAD_INPUT
