"""Every error that this library raises for bad input, as typed exceptions.

Each message is one sentence or two that say what was given, what was expected and what to do. All derive from `MetaHPOError`, so that
the command line can turn any of them into exit code 2 without a traceback.
"""


class MetaHPOError(ValueError):
    """Base class of all errors raised for bad input."""


class SpaceError(MetaHPOError):
    """A search space, a hyperparameter or a configuration of it is not valid."""


class ConfigError(MetaHPOError):
    """An argument of a function or of the command line is not valid."""


class DataError(MetaHPOError):
    """The content of a data set, table or meta-dataset is not valid."""


class StoreError(MetaHPOError):
    """A file is missing, damaged, of another version, or cannot be read or written."""


class CheckpointError(StoreError):
    """A checkpoint is missing, damaged, or belongs to another run."""


class StudyError(MetaHPOError):
    """Trials were asked for or told in an order that makes no sense."""


class BudgetError(MetaHPOError):
    """More was asked for than the budget, the pool or the capacity holds."""


class SplitError(MetaHPOError):
    """A task, or another name of its base data set, stands on both sides of a split."""


class ObjectiveError(MetaHPOError):
    """An objective returned something that is not a result."""
