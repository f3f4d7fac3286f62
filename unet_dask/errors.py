"""The errors of unet-dask.

Every error is ours *and* the builtin that it stands for, so that ``except ValueError`` keeps working,
and carries the exit code of the command line::

    UnetDaskError                      exit code
    ├── InputError (ValueError)             2     the source, or what was said about it
    │   └── DataError                       2     values in the source: NaN, a chunk that cannot be decoded
    ├── ModelError (ValueError)             2     a model file or a network
    ├── GeometryError (ValueError)          2     sizes, tiles, regions
    ├── OptionError (ValueError)            2     a setting or a combination of settings
    ├── SinkError (OSError)                 2     the sink cannot be created, or holds something else
    │   └── SinkLostError                   3     a run under way cannot write any more; it can be resumed
    ├── MismatchError (ValueError)          2     a resume whose fingerprint differs
    ├── MemoryPlanError (MemoryError)       2     no plan fits the memory that was granted
    ├── ClusterError (RuntimeError)         3     workers or scheduler lost; the run can be resumed
    └── IncompleteError (RuntimeError)      4     the run ended with failed regions

A message is one to three sentences on one line: what was asked, why it cannot be, what to do.
"""

from __future__ import annotations


class UnetDaskError(Exception):
    """Base of all errors that unet-dask raises on purpose."""

    exit_code = 2


class InputError(UnetDaskError, ValueError):
    """The source cannot be read, or not as it was described."""


class DataError(InputError):
    """Values in the source that no network can be run on."""


class ModelError(UnetDaskError, ValueError):
    """A model file or a network that cannot be used."""


class GeometryError(UnetDaskError, ValueError):
    """Sizes that do not fit the network, the lattice or the store."""


class OptionError(UnetDaskError, ValueError):
    """A setting, or a combination of settings, that cannot be."""


class SinkError(OSError, UnetDaskError):  # OSError first: its __new__ is the one that can be unpickled
    """The sink cannot be created, written or safely replaced."""


class SinkLostError(SinkError):
    """The sink cannot be written any more; what is done is kept and the run can be resumed."""

    exit_code = 3


class MismatchError(UnetDaskError, ValueError):
    """A run to resume was begun with something else; the message names the field."""


class MemoryPlanError(UnetDaskError, MemoryError):
    """No tile fits the memory that a worker was granted."""


class DriverMemoryError(UnetDaskError, MemoryError):
    """What the driver has to hold does not fit its memory; what is done is kept and the run can be resumed."""

    exit_code = 3


class ClusterError(UnetDaskError, RuntimeError):
    """Workers or the scheduler were lost; what is done is kept and the run can be resumed."""

    exit_code = 3


class IncompleteError(UnetDaskError, RuntimeError):
    """The run came to its end, but some regions failed."""

    exit_code = 4
