"""Transfer-learning protocols as one YAML and one command."""

__version__ = "0.1.0"
