"""People, a robot and a learner: sessions on a robot, their processes, and a Ray cluster."""
