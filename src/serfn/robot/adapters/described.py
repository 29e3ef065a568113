"""What an adapter says about itself, from its `RobotInfo`."""

from __future__ import annotations

from collections.abc import Mapping

from serfn.robot.contract import Feature, RobotInfo


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
