"""Driving a hand: the robot contract and its adapters, the safety supervisor, the control loop."""
