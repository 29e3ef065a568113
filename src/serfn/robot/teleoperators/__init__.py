"""Devices by which a person moves a robot; single keys and recordings are in `serfn.robot.teleoperation`."""
