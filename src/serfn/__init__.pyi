from serfn.api import Serfn as Serfn
from serfn.sessions.run import run_robot as run_robot

__version__: str
