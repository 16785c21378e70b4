"""Tasks: what is learned on. Real classification data sets with fixed splits and descriptors; splits over base data."""

from metahpo_jax.tasks.base import Split as Split
from metahpo_jax.tasks.base import Task as Task
from metahpo_jax.tasks.base import TaskShape as TaskShape
from metahpo_jax.tasks.catalogue import CATALOGUE as CATALOGUE
from metahpo_jax.tasks.catalogue import REJECTED as REJECTED
from metahpo_jax.tasks.catalogue import Source as Source
from metahpo_jax.tasks.csv_files import csv_family as csv_family
from metahpo_jax.tasks.descriptors import DESCRIPTORS as DESCRIPTORS
from metahpo_jax.tasks.descriptors import describe as describe
from metahpo_jax.tasks.family import CatalogueFamily as CatalogueFamily
from metahpo_jax.tasks.family import DataSet as DataSet
from metahpo_jax.tasks.family import TaskFamily as TaskFamily
from metahpo_jax.tasks.family import bundled as bundled
from metahpo_jax.tasks.family import shape_bucket as shape_bucket
from metahpo_jax.tasks.family import stacked as stacked
from metahpo_jax.tasks.family import tabular as tabular
from metahpo_jax.tasks.family import to_task as to_task
from metahpo_jax.tasks.images import IMAGE_DESCRIPTORS as IMAGE_DESCRIPTORS
from metahpo_jax.tasks.images import ImageFamily as ImageFamily
from metahpo_jax.tasks.images import Recipe as Recipe
from metahpo_jax.tasks.images import image_tasks as image_tasks
from metahpo_jax.tasks.preprocess import Column as Column
from metahpo_jax.tasks.preprocess import RawTable as RawTable
from metahpo_jax.tasks.preprocess import prepare as prepare
from metahpo_jax.tasks.splits import check_disjoint as check_disjoint
