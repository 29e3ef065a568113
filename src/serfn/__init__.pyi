from serfn.api import Serfn as Serfn

__version__: str
