"""The bundles in the package: `universal:<frequency>` instead of a file.

They are mixtures of experts, which learn on each stream by itself (`docs/universal.md`), and forecast without any
training.

Owns: their names and files.
Does not know: the contents of a bundle.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rillcast.bundle.frequency import canonical, parse
from rillcast.errors import BundleError

PREFIX: Final = "universal:"
FOLDER: Final = Path(__file__).parent / "universal"


def names() -> list[str]:
    """Return the names of all shipped bundles, the shortest period first."""
    frequencies = (path.stem for path in _files())
    return [PREFIX + freq for freq in sorted(frequencies, key=lambda freq: parse(freq).nominal_ms)]


def locate(model: str | Path) -> Path:
    """Return the file of a shipped bundle, or the path itself where it names none.

    Any spelling of the period will do: `universal:q` and `universal:3mo` are one, as are `universal:24h` and
    `universal:1d`.

    Raises:
        BundleError: No bundle is shipped for the frequency; the error says how to make one.
    """
    name = str(model)
    if not name.startswith(PREFIX):
        return Path(model)
    try:
        freq = canonical(name.removeprefix(PREFIX))
    except ValueError as error:
        raise BundleError("readable", f"{name!r}: {error}; shipped are {', '.join(names())}") from error
    for path in _files():
        if parse(path.stem) == parse(freq):
            return path
    raise BundleError(
        "readable",
        f"no bundle {name!r} is shipped, expected one of {', '.join(names())}; this makes one in seconds: "
        f"`rillcast universal export --freq {freq} --out {freq}.onnx`",
    )


def _files() -> Iterator[Path]:
    """Return the bundles, without what an export that was killed has left half written."""
    return FOLDER.glob("[!.]*.onnx")
