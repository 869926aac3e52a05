"""A real PostgreSQL for tests: found on this machine, else unpacked from Debian's package; no root needed.

Owns: finding the programs, and a server process on a free loopback port. Does not know: tables.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.support import debian
from tests.support.kafka_broker import free_ports

_INIT_TIMEOUT_S: Final = 120.0
_START_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.1
_NOBODY: Final = "nobody"
"""The server refuses to run as root, so that a test that does needs another user for it."""
USER: Final = "rillcast"


class PostgresError(Exception):
    """PostgreSQL is unavailable or did not start; the message says why."""


class Server(NamedTuple):
    """A running server, which trusts everybody on the loopback address."""

    port: int
    programs: Path
    environment: Mapping[str, str]

    @property
    def url(self) -> str:
        """Address of its database, for `psql`."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"


def installed() -> Path | None:
    """Return the folder with `initdb`, `postgres` and `psql` on this machine; None = they are not installed."""
    found = [Path(program).resolve().parent for program in [shutil.which("postgres")] if program]
    return _newest(found) or _newest(Path("/usr/lib/postgresql").glob("*/bin"))


def _newest(places: Iterable[Path]) -> Path | None:
    whole = (place for place in places if all((place / name).exists() for name in ("initdb", "postgres", "psql")))
    return max(whole, key=lambda place: (len(place.parent.name), place.parent.name), default=None)


def _programs(home: Path) -> tuple[Path, dict[str, str]]:
    """Return the folder with the programs, and the variables that they need.

    Raises:
        PostgresError: They are not on this machine and cannot be fetched.
    """
    if (place := installed()) is not None:
        return place, {}
    try:
        folder = debian.unpacked("postgresql", needs=True)
    except debian.DebianError as error:
        raise PostgresError(str(error)) from error
    if os.geteuid() == 0:  # the server's user may not read the cache of root
        folder = Path(shutil.copytree(folder, home / "unpacked", symlinks=True))
    place = _newest((folder / "usr/lib/postgresql").glob("*/bin"))
    if place is None:
        raise PostgresError(f"{folder} has no PostgreSQL; remove it, and it is fetched again")
    return place, {"LD_LIBRARY_PATH": debian.libraries(folder)}


@contextlib.contextmanager
def running_postgres() -> Iterator[Server]:
    """Start a server with its own data, yield it, and stop it."""
    (port,) = free_ports(1)
    as_user: dict[str, Any] = {"user": _NOBODY} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="rillcast-postgres-") as folder:
        home = Path(folder)
        bin_folder, variables = _programs(home)
        as_user["env"] = environment = os.environ | variables
        if os.geteuid() == 0:
            shutil.chown(home, _NOBODY)
        data = home / "data"
        init = [str(bin_folder / "initdb"), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        run = subprocess.run(
            [*init, "--locale=C"],
            capture_output=True, text=True, timeout=_INIT_TIMEOUT_S, check=False, cwd=home, **as_user,
        )  # fmt: skip
        if run.returncode != 0:
            raise PostgresError(f"initdb failed (exit {run.returncode}):\n{run.stdout}{run.stderr}")
        options = ["-p", str(port), "-h", "127.0.0.1", "-k", str(home), "-F"]
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [str(bin_folder / "postgres"), "-D", str(data), *options],
                stdout=log, stderr=subprocess.STDOUT, cwd=home, **as_user,
            )  # fmt: skip
            try:
                _wait_until_it_serves(process, data / "postmaster.pid", log)
                yield Server(port, bin_folder, environment)
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(15)
                process.kill()
                process.wait()


def _wait_until_it_serves(process: subprocess.Popen[bytes], state: Path, log: Any) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not (state.exists() and "ready" in state.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            raise PostgresError(f"postgres does not serve (exit {process.poll()}):\n{log.read().decode()}")
        time.sleep(_POLL_S)
