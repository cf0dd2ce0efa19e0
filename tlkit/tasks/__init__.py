"""Tasks: what is trained, how it is judged."""

from tlkit.tasks.base import Task
from tlkit.tasks.classification import Classification
from tlkit.tasks.normalisation import Normalisation
from tlkit.tasks.restoration import Restoration

__all__ = ["Classification", "Normalisation", "Restoration", "Task"]
