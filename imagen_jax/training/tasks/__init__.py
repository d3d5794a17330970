"""Tasks: what is learned, from what, and with which parameters frozen. One file a task."""

from imagen_jax.training.tasks.base import Task as Task
from imagen_jax.training.tasks.diffusion import Diffusion as Diffusion
