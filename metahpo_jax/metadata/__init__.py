"""Meta-datasets: what many configurations did on many tasks, recorded once for everything that learns to tune."""

from metahpo_jax.metadata.quality import summarise as summarise
from metahpo_jax.metadata.schema import MetaDataset as MetaDataset
from metahpo_jax.metadata.schema import TaskRecord as TaskRecord
from metahpo_jax.metadata.store import load_metadataset as load_metadataset
from metahpo_jax.metadata.store import save_metadataset as save_metadataset
