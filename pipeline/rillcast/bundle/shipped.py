"""The bundles that come with the package: `universal:<frequency>` in place of a file.

Owns: their names and where they lie. Does not know: what a bundle is. They were pretrained on synthetic series
(`docs/universal.md`), and forecast streams that nobody trained anything for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rillcast.errors import BundleError

PREFIX: Final = "universal:"
FOLDER: Final = Path(__file__).parent / "universal"


def names() -> list[str]:
    """Return the names of all shipped bundles."""
    return sorted(PREFIX + path.stem for path in FOLDER.glob("*.onnx"))


def locate(model: str | Path) -> Path:
    """Return the file of a shipped bundle, or the path itself where it names none.

    Raises:
        BundleError: it asks for a frequency that no bundle is shipped for.
    """
    name = str(model)
    if not name.startswith(PREFIX):
        return Path(model)
    path = FOLDER / f"{name.removeprefix(PREFIX)}.onnx"
    if path.parent != FOLDER or not path.is_file():
        raise BundleError(
            "readable",
            f"no bundle {name!r} is shipped; there are {', '.join(names())}. For another frequency, train one: "
            "`rillcast train DATA --freq ... `, or without data `rillcast train --synthetic`",
        )
    return path
