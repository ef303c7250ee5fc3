"""Data Lake as a Service for JupyterHub.

The folder of a line of code answers one question: which process runs it, and
which secrets may that process see? See ARCHITECTURE.md.
"""

__version__ = "0.1.0"
