"""`serfn robot record`: demonstrations by a person who moves the robot."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console

from serfn.cli.options import optional
from serfn.cli.overrides import override
from serfn.cli.robot.terminal import SWITCH_S, at_terminal, person_at_keys, session_watcher
from serfn.cli.train import Assignments

Reset = Literal["scene", "person", "none"]


def record(
    *,
    out: Path,
    robot: str = "simulated:cube",
    teleop: str = "keyboard",
    speed: Annotated[float | None, optional("FLOAT", "the device's own positions")] = None,
    episodes: Annotated[int | None, optional("INT", "until you press q")] = None,
    seconds: Annotated[float | None, optional("FLOAT", "60, or the task's")] = None,
    limits: Annotated[Path | None, optional("FILE", "a simulation's own bounds")] = None,
    reset: Annotated[
        Literal["scene", "person", "none"] | None, optional("WHO", "a person, if there is one")
    ] = None,
    reward: Annotated[str | None, optional("NAME", "the robot's own, or people")] = None,
    task: str = "",
    confirm_limits: bool = False,
    assignments: Assignments = (),
) -> None:
    """Record demonstrations: a person moves the robot, behind the same safety supervisor as a policy.

    Keys label an episode (s success, f failure, d discard) while it runs, which ends it, or up to 30 s after
    its end. Run the same command again to go on where it stopped.

    Args:
        out: Folder of the recording, new or gone on with; 'serfn train --demos' reads it as it is.
        robot: Which robot: simulated:TASK, gymnasium:ID, orca, fake, or package.module:Class.
        teleop: What moves it: keyboard, spacemouse, zmq:ADDRESS, lerobot:NAME,key=value, scripted (a
            simulated task's demonstrator), or package.module:Class.
        speed: Motion of the robot per motion of the device, from where both are when the clutch closes.
        episodes: Episodes that the folder shall hold in the end, discarded ones not counted.
        seconds: Time limit of an episode.
        limits: Limits file of the robot, see 'serfn robot limits'; needed for whatever is not a simulation.
        reset: Who puts the scene back between episodes.
        reward: Judge of each step: a registered one, or package.module:Class or function.
        task: Name of the task, or an instruction, recorded with every episode.
        confirm_limits: The limits have been read: hardware may move although nobody is at the keys.
        assignments: Change one option, such as --set robot_options.plant=field.
    """
    # The screen and the recorder share the interpreter with the control loop: they must let it in soon.
    sys.setswitchinterval(SWITCH_S)
    from serfn.robot.clock import MonotonicClock
    from serfn.sessions.config import LearningConfig, RobotRunConfig
    from serfn.sessions.record import record as record_episodes
    from serfn.sessions.record import recording_session
    from serfn.sessions.robots import make_robot
    from serfn.sessions.teleoperators import make_teleoperator

    settings = RobotRunConfig(
        robot=robot,
        limits=limits,
        reward=reward,
        task=task,
        episode_s=seconds,
        reset=reset or ("person" if at_terminal() else "scene"),
        learning=LearningConfig(place="none"),
    )
    settings = override(settings, assignments)
    clock = MonotonicClock()
    device = make_robot(settings.robot, settings.robot_options, clock, seed=settings.seed)
    console = Console(stderr=True)
    with ExitStack() as stack:
        person = person_at_keys(device, stack)
        jog = None if person is None else person.jog
        mover = make_teleoperator(teleop, device, jog=jog, speed=speed, seed=settings.seed)
        watcher: Any = stack.enter_context(session_watcher(console, out / "status.json", person))
        session = recording_session(
            device,
            mover,
            out,
            settings,
            clock=clock,
            person=person,
            watcher=watcher,
            confirmed=confirm_limits,
        )
        watcher.attach(session)
        stack.enter_context(session)
        try:
            reason = record_episodes(session, episodes)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"the robot was brought to rest, and what was recorded is in {out}; run the same command to "
                "go on"
            ) from None
        finally:
            watcher.phase("over", "the robot parks")
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{reason}, {session.use.minutes:.1f} minutes of robot time", markup=False)
    console.print(f"recording: {out}; look at it with: serfn data check {out}", markup=False)
