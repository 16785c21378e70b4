"""Image classification tasks: base sets of real images, and tasks drawn from them by seeded recipes."""

from metahpo_jax.tasks.images.bases import BASES as BASES
from metahpo_jax.tasks.images.descriptors import IMAGE_DESCRIPTORS as IMAGE_DESCRIPTORS
from metahpo_jax.tasks.images.descriptors import describe_images as describe_images
from metahpo_jax.tasks.images.family import ImageFamily as ImageFamily
from metahpo_jax.tasks.images.family import image_tasks as image_tasks
from metahpo_jax.tasks.images.recipe import Corruption as Corruption
from metahpo_jax.tasks.images.recipe import Recipe as Recipe
from metahpo_jax.tasks.images.recipe import draw as draw
