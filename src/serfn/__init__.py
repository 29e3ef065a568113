"""Sample-efficient robot learning with normalizing-flow policies over chunks of actions."""

__version__ = "0.1.0"
