"""The errors that Rillcast raises on purpose.

Owns: the policy of each error, as part of its class. `retriable` says whether a restart may help without any change (a
supervisor restarts the process), or an operator must act first; `exit_code` is that of the command line. Facts are
fields. Does not know: who raises or handles an error.
"""

from __future__ import annotations


class RillcastError(Exception):
    """Root of all errors below."""

    retriable = False
    exit_code = 1


class SettingsError(RillcastError):
    """The configuration is invalid: an unknown key, a wrong value, or two values that contradict each other."""

    exit_code = 2


class DataError(RillcastError):
    """A data set on disk does not fit the request: a missing column, no rows, a wrong frequency."""

    exit_code = 2


class BundleError(RillcastError):
    """A model file breaks the bundle contract.

    Attributes:
        clause: Name of the broken clause; `docs/bundle.md` lists them all.
        reason: Found and expected values.
    """

    exit_code = 3

    def __init__(self, clause: str, message: str) -> None:
        super().__init__(f"bundle refused [{clause}]: {message}")
        self.clause, self.reason = clause, message


class RegistryError(RillcastError):
    """The model registry lacks the requested model, or its bytes are not those that were pushed."""

    exit_code = 3


class RegistryUnreachableError(RegistryError):
    """The storage of the model registry does not answer, or refuses access."""

    retriable = True
    exit_code = 5


class RolloutRefusedError(RillcastError):
    """A model cannot replace the serving model without a stop; the serving model continues."""

    exit_code = 3


class OtherRecordsError(RolloutRefusedError):
    """A model publishes records of another kind than the serving model, so that consumers would notice the change."""


class OutOfMemoryError(RillcastError):
    """The memory that this process may have is used up. Nothing after the last commit counts."""

    retriable = True
    exit_code = 5


class NoForecastError(RillcastError):
    """A file was read to its end and gave no forecast: none of its records could be used, or it has none."""

    exit_code = 7


class ParityError(RillcastError):
    """The exported graph and the PyTorch module disagree; nothing was written."""

    exit_code = 3


class DeviceError(RillcastError):
    """The requested device is absent or cannot run the bundle."""

    exit_code = 4


class SlotError(RillcastError):
    """A slot is out of range, repeated in one call, or not allocated: a defect of Rillcast, never of the input."""


class IllegalTransitionError(RillcastError):
    """A partition or a roll-out cannot go from its state to the one asked for: a fault of ours, never of the input."""


class TransportError(RillcastError):
    """Source or sink failed (broker unreachable, authorisation, disk full). Nothing after the last commit counts."""

    retriable = True
    exit_code = 5


class UnreachableError(TransportError):
    """No broker answers."""


class InUseError(TransportError):
    """Another process, or another part of this one, writes the file or directory."""


class OutputError(TransportError):
    """A file cannot be written (disk full). A file that had its name before is unchanged."""


class DeliveryError(TransportError):
    """Some published records were not acknowledged; the commit that covers them must not happen."""


class TransactionAborted(TransportError):  # noqa: N818  it names an outcome
    """The transaction failed; the caller resets to the committed positions, which show whether it committed."""


class FencedError(TransportError):
    """Another member has this one's partitions or transactional id; further work of this one has no effect."""


class StateError(RillcastError):
    """Stored state is damaged, foreign, or of an unknown format. Nothing was changed; an operator must decide."""

    exit_code = 6


class RecoveryError(RillcastError):
    """The state cannot be restored to the committed offset; an operator must decide."""

    exit_code = 6


class ServedByAnotherKindError(RecoveryError):
    """A partition is served by a model whose records differ from those of the model that this member started with.

    Attributes:
        model_id: The model that serves the partition.
        route: Name of the table of models that it serves; empty where there is one model.
    """

    def __init__(self, model_id: str, message: str) -> None:
        super().__init__(message)
        self.model_id = model_id
        self.route = ""
