"""Meta-datasets: what many configurations did on many tasks, recorded once for everything that learns to tune."""

from metahpo_jax.metadata.archive import Archive as Archive
from metahpo_jax.metadata.archive import ArchivedTask as ArchivedTask
from metahpo_jax.metadata.archive import Source as Source
from metahpo_jax.metadata.archive import archive_of as archive_of
from metahpo_jax.metadata.archive import share_of_range as share_of_range
from metahpo_jax.metadata.archive import sources_of as sources_of
from metahpo_jax.metadata.archive_store import is_archive as is_archive
from metahpo_jax.metadata.archive_store import load_archive as load_archive
from metahpo_jax.metadata.archive_store import save_archive as save_archive
from metahpo_jax.metadata.importer import import_table as import_table
from metahpo_jax.metadata.quality import summarise as summarise
from metahpo_jax.metadata.schema import MetaDataset as MetaDataset
from metahpo_jax.metadata.schema import TaskRecord as TaskRecord
from metahpo_jax.metadata.space_file import load_space as load_space
from metahpo_jax.metadata.store import PACKAGED as PACKAGED
from metahpo_jax.metadata.store import load_metadataset as load_metadataset
from metahpo_jax.metadata.store import save_metadataset as save_metadataset
