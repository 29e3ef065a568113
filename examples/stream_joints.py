"""Send joint targets to a robot from any device: a slow wave on one joint, 30 times a second.

In another terminal: serfn robot record --robot fake --teleop zmq:tcp://127.0.0.1:5555 --out demos

Put the reading of your glove or leader arm in place of the wave; with `clutch: false` the robot holds.
"""

from __future__ import annotations

import argparse
import json
import math
import time

import zmq


def main() -> None:
    """Publish until interrupted, or for so many seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--address", default="tcp://127.0.0.1:5555", help="where to publish")
    parser.add_argument("--joint", default="joint0.pos", help="joint to move, by the robot's name")
    parser.add_argument("--seconds", type=float, default=math.inf, help="how long")
    given = parser.parse_args()
    socket = zmq.Context.instance().socket(zmq.PUB)
    socket.bind(given.address)
    begin_s = time.monotonic()
    while (passed_s := time.monotonic() - begin_s) < given.seconds:
        target = 0.5 * math.sin(2 * math.pi * 0.2 * passed_s)
        socket.send(json.dumps({"joints": {given.joint: target}, "clutch": True}).encode())
        time.sleep(1 / 30)


if __name__ == "__main__":
    main()
