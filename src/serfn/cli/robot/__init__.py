"""`serfn robot`: record, run, fine-tune and look after a policy on a robot."""

from serfn.cli.parsing import Group
from serfn.cli.robot.check import check, limits
from serfn.cli.robot.record import record
from serfn.cli.robot.recover import recover
from serfn.cli.robot.relabel import relabel
from serfn.cli.robot.run import learn, run

ROBOT = Group(
    "Record, run and fine-tune on a robot, real or simulated; check the robot, its limits and its labels.",
    {
        "check": check,
        "limits": limits,
        "record": record,
        "run": run,
        "learn": learn,
        "relabel": relabel,
        "recover": recover,
    },
)
