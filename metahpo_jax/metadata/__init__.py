"""Meta-datasets: what many configurations did on many tasks, recorded once for everything that learns to tune."""

from metahpo_jax.metadata.archive import Archive as Archive
from metahpo_jax.metadata.archive import ArchivedTask as ArchivedTask
from metahpo_jax.metadata.archive import Source as Source
from metahpo_jax.metadata.archive import archive_of as archive_of
from metahpo_jax.metadata.quality import summarise as summarise
from metahpo_jax.metadata.schema import MetaDataset as MetaDataset
from metahpo_jax.metadata.schema import TaskRecord as TaskRecord
from metahpo_jax.metadata.store import load_metadataset as load_metadataset
from metahpo_jax.metadata.store import save_metadataset as save_metadataset
