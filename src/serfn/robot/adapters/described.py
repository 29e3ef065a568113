"""What an adapter says about itself, from its `RobotInfo`."""

from __future__ import annotations

from collections.abc import Mapping

from serfn.robot.contract import Feature, RobotInfo
from serfn.robot.health import JointHealth


class DescribedRobot:
    """The part of the `Robot` contract that follows from `_info`, which an adapter sets when it is made."""

    _info: RobotInfo

    @property
    def name(self) -> str:
        """See `Robot`."""
        return self._info.name

    @property
    def info(self) -> RobotInfo:
        """See `Robot`."""
        return self._info

    @property
    def action_features(self) -> Mapping[str, Feature]:
        """See `Robot`."""
        return dict.fromkeys(self._info.action.names, float)

    def health(self, *, complete: bool = False) -> Mapping[str, JointHealth]:
        """See `serfn.robot.health.ReportsHealth`; nothing is known, unless an adapter asks its driver."""
        return {}
