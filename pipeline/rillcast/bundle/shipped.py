"""The bundles in the package: `universal:<frequency>` instead of a file.

They are pretrained on synthetic series (`docs/universal.md`) and forecast streams without any training.

Owns: their names and files.
Does not know: the contents of a bundle.
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
        BundleError: No bundle is shipped for the frequency.
    """
    name = str(model)
    if not name.startswith(PREFIX):
        return Path(model)
    path = FOLDER / f"{name.removeprefix(PREFIX)}.onnx"
    if path.parent != FOLDER or not path.is_file():
        raise BundleError(
            "readable",
            f"no bundle {name!r} is shipped, expected one of {', '.join(names())}; train one for another frequency: "
            "`rillcast train DATA --freq ...`, or without data `rillcast train --synthetic`",
        )
    return path
