"""How a policy learns: losses, the agent that applies them, four resumable stages, gates and checkpoints.

Needs torch, numpy and safetensors only. Environments, episodes and evaluations arrive through callbacks
(`stages.context.StageContext`), so that the same stages run against a simulation, a mock and a real robot.
"""
