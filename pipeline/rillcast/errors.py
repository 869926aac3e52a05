"""Every error that Rillcast raises on purpose.

Policy is part of the class, facts are fields: `retriable` says whether starting again may help without
anybody changing anything (a supervisor restarts the process), or whether a person has to act first.
"""

from __future__ import annotations


class RillcastError(Exception):
    """Root of all errors below. `exit_code` is what the command line ends with."""

    retriable = False
    exit_code = 1


class SettingsError(RillcastError):
    """The configuration cannot be used: an unknown key, a wrong value, or two that contradict each other."""

    exit_code = 2


class DataError(RillcastError):
    """A data set on disk cannot be used as asked: a missing column, no rows, a wrong frequency."""

    exit_code = 2


class BundleError(RillcastError):
    """A model file breaks the bundle contract.

    Attributes:
        clause: name of the broken clause; `docs/bundle.md` lists them all.
        reason: what was found, and what was expected.
    """

    exit_code = 3

    def __init__(self, clause: str, message: str) -> None:
        super().__init__(f"bundle refused [{clause}]: {message}")
        self.clause, self.reason = clause, message


class RegistryError(RillcastError):
    """The model registry does not have what was asked for, or what it has is not what was pushed."""

    exit_code = 3


class RegistryUnreachableError(RegistryError):
    """The storage of the model registry does not answer, or does not let us in."""

    retriable = True
    exit_code = 5


class RolloutRefusedError(RillcastError):
    """A model cannot take over from the one that serves while it does; the one that serves goes on."""

    exit_code = 3


class ParityError(RillcastError):
    """The exported graph and the PyTorch module disagree; nothing was written."""

    exit_code = 3


class DeviceError(RillcastError):
    """The device that was asked for is not there or cannot run the bundle."""

    exit_code = 4


class SlotError(RillcastError):
    """A slot is out of range, repeated in one call, or not allocated: a fault of ours, never of the input."""


class IllegalTransitionError(RillcastError):
    """A partition or a roll-out cannot go from its state to the one asked for: a fault of ours, never of the input."""


class TransportError(RillcastError):
    """Source or sink failed (broker away, authorisation, disk full). Nothing after the last commit counts."""

    retriable = True
    exit_code = 5


class DeliveryError(TransportError):
    """Some published records were not acknowledged; the commit that covers them must not happen."""


class TransactionAborted(TransportError):  # noqa: N818  it names an outcome
    """The transaction did not end well; the caller goes back to the committed positions, which tell its fate."""


class FencedError(TransportError):
    """Another member has this one's partitions or transactional id; whatever this one still does has no effect."""


class StateError(RillcastError):
    """Stored state is damaged, foreign, or of an unknown format. Nothing was re-initialised; a person has to decide."""

    exit_code = 6


class RecoveryError(RillcastError):
    """The state cannot be brought back to what the committed offset asks for; a person has to decide."""

    exit_code = 6
