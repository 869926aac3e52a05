"""Where the trials of a search are kept: a journal file of one machine, or a database that several machines share.

Owns: how a study is opened, the check that it belongs to the same search, and how unfinished trials are marked as
failed. Does not know: what a trial does.

Trials in a file that an earlier call left unfinished fail when the study is opened. Trials in a database may be running
on another machine, so each sends a heartbeat, and fails when its heartbeat stops.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from rillcast.errors import OutputError, SettingsError
from rillcast.outputs import reason

_NAME: Final = "rillcast"
_STARTUP_TRIALS: Final = 8  # drawn at random before the sampler learns from them
_HEARTBEAT_S: Final = 30
_GRACE_S: Final = 120


def open_study(place: Path | str, identity: Mapping[str, Any], seed: int) -> optuna.Study:
    """Open or create a study.

    Args:
        place: A file, or the address of a database, with the name of the study after `#`.
        identity: The facts that all calls on one study share.
        seed: Seed of the sampler of a study in a file. In a database every process draws its own, or all of them would
            try the same.

    Raises:
        SettingsError: It is no study, or that of another search, or the database needs a package.
        OutputError: The file or the database cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", "Argument ``heartbeat_interval`` is an experimental", ExperimentalWarning)
    in_file = isinstance(place, Path)
    with usable(place):
        storage, name = (_file(place), _NAME) if isinstance(place, Path) else _database(place)
        try:
            study = optuna.create_study(
                study_name=name,
                storage=storage,
                directions=["minimize", "minimize"],
                load_if_exists=True,
                sampler=TPESampler(seed=seed if in_file else None, multivariate=True, n_startup_trials=_STARTUP_TRIALS),
            )
        except (ValueError, KeyError) as error:
            raise SettingsError(f"{shown(place)}: not a study that can be continued ({error}); name another") from error
        saved = study.user_attrs.get("identity", identity)
        if different := sorted(key for key in identity if identity[key] != saved.get(key)):
            listed = ", ".join(f"{key} is {saved.get(key)!r}, expected {identity[key]!r}" for key in different)
            raise SettingsError(f"{shown(place)}: belongs to another search: {listed}; name another")
        study.set_user_attr("identity", dict(identity))
        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]) if in_file else ():
            study.tell(trial.number, state=TrialState.FAIL)
    return study


@contextmanager
def usable(place: Path | str) -> Iterator[None]:
    """Name the study in errors of its file or database.

    Raises:
        OutputError: The file or the database cannot be used.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{shown(place)}: {reason(error)}; continue with the same command") from error
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        text = " ".join(str(getattr(cause, "orig", None) or cause).split())[:300]
        raise OutputError(f"{shown(place)}: {text}; continue with the same command") from error


def shown(place: Path | str) -> str:
    """Return a study's place for messages, without a password."""
    if isinstance(place, Path):
        return str(place)
    address, mark, name = place.partition("#")
    try:
        return make_url(address).render_as_string(hide_password=True) + mark + name
    except SQLAlchemyError:
        return f"{address.partition('://')[0]}://..."


def picture_of(place: Path | str) -> Path:
    """Return the file of the picture of a study; one of a study in a database is in the working directory."""
    if isinstance(place, Path):
        return place.with_name(place.name + ".png")
    return Path(f"{place.partition('#')[2] or _NAME}.study.png")


def _file(path: Path) -> BaseStorage:
    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))


def _database(place: str) -> tuple[BaseStorage, str]:
    address, _, name = place.partition("#")
    try:
        make_url(address).get_dialect()
        storage = RDBStorage(
            address,
            heartbeat_interval=_HEARTBEAT_S,
            grace_period=_GRACE_S,
            engine_kwargs={"pool_pre_ping": True},
        )
    except (ImportError, ValueError, ArgumentError) as error:
        raise SettingsError(
            f"--study {shown(place)}: the database cannot be opened: {' '.join(str(error).split())[:200]}; for "
            f"PostgreSQL: pip install 'rillcast[tune]', and postgresql://USER@HOST/DATABASE#NAME"
        ) from error
    return storage, name or _NAME
