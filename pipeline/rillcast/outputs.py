"""The files that a command writes.

Owns: the checks before any work (no output is an input or another output, each can be written, its name fits its
content), the replacement of a file as a whole, and files that grow: their lock, their half lines, their names.
Does not know: what is written.

Invariants: a file that exists is replaced only by a complete one, or grows by whole lines. While a process writes a
file that grows, no other process does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import stat
import sys
import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, TypeAlias

import msgspec

from rillcast.errors import InUseError, OutputError, RillcastError, SettingsError

log = logging.getLogger(__name__)

STANDARD: Final = "-"
"""Standard input or standard output, in place of a path."""
PICTURES: Final = (".png", ".svg", ".pdf", ".jpg", ".webp")
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")  # how libraries written in Rust name an errno
_TAIL_BYTES: Final = 1 << 16

Paths: TypeAlias = Mapping[str, str | Path | None]
"""Paths by the flag or setting that names them; None = not given."""


# The checks before any work.


def check(inputs: Paths, outputs: Paths) -> None:
    """Refuse outputs that would destroy an input or each other, or that cannot be written. Nothing is changed.

    Args:
        inputs: Files that the command reads.
        outputs: Files that it writes.

    Raises:
        SettingsError: Two paths lead to one file, or a file cannot be written.
    """
    known: dict[Hashable, str] = {}
    for name, path in inputs.items():
        if path is not None and (identity := _identity(path, descriptor=0)) is not None:
            known[identity] = f"{name} {path}"
    for name, path in outputs.items():
        if path is None:
            continue
        if (identity := _identity(path, descriptor=1)) is not None:
            if identity in known:
                raise SettingsError(f"{name} {path} is the same file as {known[identity]}; name another file")
            known[identity] = f"{name} {path}"
        if str(path) != STANDARD:
            _check_writable(name, Path(path))


def require_ending(name: str, path: str | Path, content: str, endings: Sequence[str], also: Sequence[str] = ()) -> None:
    """Refuse the name of a file that would not hold what its ending says; devices and pipes have any name.

    Args:
        name: Flag or setting of the path.
        path: The file.
        content: What it will hold, for the message.
        endings: Endings that fit, for the message too.
        also: Further endings that fit.

    Raises:
        SettingsError: The name has another ending.
    """
    path = Path(path)
    if str(path) != STANDARD and not is_special(path) and path.suffix.lower() not in (*endings, *also):
        listed = " or ".join(", ".join(endings).rsplit(", ", 1))
        raise SettingsError(f"{name} {path}: the file would hold {content}; expected {listed} as its ending")


def check_folder(name: str, path: Path) -> None:
    """Refuse a directory to write to that is a file, or that cannot be created or written.

    Raises:
        SettingsError: It cannot be used.
    """
    if path.exists() and not path.is_dir():
        raise SettingsError(f"{name} {path} is a file; name a directory")
    existing = path.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise SettingsError(f"{name} {path}: {existing} is no directory that can be written")


def _identity(path: str | Path, descriptor: int) -> Hashable | None:
    """Return what is equal for two paths that lead to one file; None for a device, a pipe or a directory."""
    try:
        found = os.fstat(descriptor) if str(path) == STANDARD else Path(path).stat()
    except FileNotFoundError:
        return str(Path(path).resolve())
    except OSError:
        return None  # it cannot be opened either
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def is_special(path: Path) -> bool:
    """Return whether a path leads to a device or a pipe, which cannot be replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _check_writable(name: str, path: Path) -> None:
    try:
        if path.is_dir():
            raise SettingsError(f"{name} {path} is a directory; name a file")
        if not path.parent.is_dir():
            raise SettingsError(f"{name} {path}: the directory {path.parent} does not exist")
        if is_special(path):
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        with contextlib.suppress(FileNotFoundError), path.open("r+b"):
            pass  # it exists and may be written
        partial = _partial(path.resolve())
        try:
            with partial.open("xb"):
                pass
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(f"{name} {path}: cannot be written: {reason(error)}") from error


# Files that are replaced as a whole.


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which takes the place of `path` if the block ends without an error.

    It has the same ending, lies in the same directory, and is removed afterwards in any case. Data for a device or a
    pipe are copied there at the end.

    Raises:
        OutputError: The file cannot be written; an existing one is unchanged.
    """
    special = is_special(path)
    target = path.resolve()
    partial = _partial(Path(tempfile.gettempdir(), path.name) if special else target)
    try:
        yield partial
        if special:
            path.write_bytes(partial.read_bytes())
        else:
            _take_place(partial, target)
    except RillcastError:
        raise
    except Exception as error:
        if (why := _why(error, partial)) is None:
            raise
        raise OutputError(f"{path}: {why}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def replace(path: Path, data: bytes) -> None:
    """Write a file, durable and as a whole.

    Raises:
        OutputError: It cannot be written; an existing one is unchanged.
    """
    with replacing(path) as partial, partial.open("xb") as file:
        file.write(data)


def reason(error: OSError) -> str:
    """Return the reason of an error about a file, as the operating system words it."""
    if error.strerror:
        return error.strerror
    found = _OS_ERROR.search(str(error))
    return os.strerror(int(found[1])) if found is not None else str(error)


def _why(error: Exception, partial: Path) -> str | None:
    """Return why a file could not be written; None = the error has another cause.

    Libraries raise errors of their own without the reason (Parquet's, PyTorch's); a full disk refuses our write too.
    """
    if isinstance(error, OSError):
        return reason(error)
    try:
        with partial.open("ab") as file:
            file.write(bytes(_TAIL_BYTES))
    except OSError as found:
        return reason(found)
    return None


def _partial(path: Path) -> Path:
    """Return a hidden name in the same directory with the same ending, which tells a library the format to write."""
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


def _take_place(partial: Path, target: Path) -> None:
    """Rename a complete file; it is durable first, and has the rights of the file that it replaces."""
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.fchmod(descriptor, stat.S_IMODE(target.stat().st_mode))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.replace(target)


# Files that grow.


class GrowingFile:
    """A file that a run writes line by line, under a lock.

    With `append` the lines follow those that the file has. Otherwise they go to a second file in the same directory,
    the working file: `keep` gives it the name of the file where none exists, `finish` lets it replace the file. So a
    run that fails leaves the results of an earlier one as they were. A device, a pipe or standard output has neither.
    """

    def __init__(self, path: str, *, append: bool = False, working: Path | None = None) -> None:
        """Lock and open.

        Args:
            path: The file; `-` is standard output.
            append: Whether to write after the lines that it has.
            working: The working file; None = `path` with `.partial`.

        Raises:
            InUseError: Another process writes the file.
            OSError: It cannot be opened.
        """
        self.working: Path | None = None
        self._lock: _Lock | None = None
        if path == STANDARD:  # a duplicate: closing it leaves standard output open
            self.file: IO[bytes] = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        elif is_special(Path(path)):
            self.file = Path(path).open("wb")  # noqa: SIM115  `close` closes it
        else:
            self._target = Path(path).resolve()
            self._lock = _Lock(self._target)
            try:
                if append:
                    _end_half_line(self._target)
                    self.file = self._target.open("ab")
                    if size := self.file.tell():
                        log.info("%s has %d bytes; this run appends to it", self._target, size)
                else:
                    self.working = working_file(self._target) if working is None else working
                    self.file = self.working.open("wb")
            except BaseException:
                self._lock.release()
                raise

    def flush(self) -> None:
        """Make what was written durable.

        Raises:
            OSError: It is not.
        """
        self.file.flush()
        if stat.S_ISREG(os.fstat(self.file.fileno()).st_mode):  # a pipe or a device refuses to sync
            os.fsync(self.file.fileno())

    def keep(self) -> None:
        """Give the working file the name of the file, unless it is empty or an earlier file has the name."""
        if self.working is not None and self.file.tell() and not self._target.exists():
            self.finish()

    def finish(self) -> None:
        """Let the working file replace the file."""
        if self.working is not None:
            self.flush()
            _take_place(self.working, self._target)
            self.working = None

    def close(self) -> None:
        """Close and unlock. A working file that did not replace the file stays, unless it is empty.

        Raises:
            OSError: The last lines could not be written.
        """
        try:
            self.file.close()
        finally:
            working, self.working = self.working, None
            if working is not None and working.exists():
                if working.stat().st_size == 0:
                    working.unlink()
                else:
                    log.warning("%s is not written; the records of this run are in %s", self._target, working)
            if self._lock is not None:
                self._lock.release()


def working_file(path: Path) -> Path:
    """Return the file to which a run writes before it replaces another."""
    return path.with_name(f"{path.name}.partial")


class _Lock:
    """The lock of a file that grows: a file next to it, which goes with the lock."""

    def __init__(self, target: Path) -> None:
        self._path = target.with_name(f".{target.name}.lock")
        while True:
            self._descriptor = acquire(self._path, str(target), "which writes it; stop that one, or name another file")
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_ino == os.fstat(self._descriptor).st_ino:
                    return
            os.close(self._descriptor)  # another process removed this file when it released its lock

    def release(self) -> None:
        """Unlock; the file is removed first, while no other process can hold its lock."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def acquire(path: Path, subject: str, remedy: str) -> int:
    """Lock a file, which is created if it is missing; return the descriptor that holds the lock until it is closed.

    Args:
        path: File to lock; it then holds the id of this process.
        subject: Name of what it protects, for the message.
        remedy: What to do where another process holds it.

    Raises:
        InUseError: Another process holds it.
        OSError: It cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise InUseError(f"{subject} is in use by process {holder or 'unknown'}, {remedy}") from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _end_half_line(path: Path) -> None:
    """Cut what a crash or a full disk left of a last record, or end a last line that is whole but for its end."""
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        tail = b""
        while end and b"\n" not in tail:
            start = max(0, end - _TAIL_BYTES)
            file.seek(start)
            tail, end = file.read(end - start) + tail, start
        half = tail.rpartition(b"\n")[2]
        if not half:
            return
        if _is_half_record(half):
            file.truncate(size - len(half))
            log.warning("%s ended with half a record (%d bytes); it was cut off", path, len(half))
        else:
            file.seek(size)
            file.write(b"\n")
            log.warning("%s ended without the end of its last line; it was added", path)


def _is_half_record(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except msgspec.DecodeError:
        return line.startswith((b"{", b"\0"))  # a line of another kind is not ours to cut
    return False
