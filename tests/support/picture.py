"""Writes the picture of the live page in the documentation: `make picture`.

Owns: the demo that is shown, the moment, and the form of the file. Does not know: the page.
What it shows is served: the demo trains on real data and steps the weeks that its model has not seen.
"""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from PIL import Image

from tests.support.chromium import running_browser
from tests.support.paths import ROOT

PICTURE: Final = ROOT / "docs" / "live-page.png"
LIMIT_BYTES: Final = 200_000
SIZE: Final = (1280, 860)
_COLOURS: Final = 256
_SPEED: Final = 600  # events per second
_EVENTS: Final = 9_000  # of about 13,000: every lag window is full, and events still come
_START_TIMEOUT_S: Final = 900.0
_STOP_TIMEOUT_S: Final = 60.0


def main() -> int:
    """Run the demo, take the picture while events come, and write it.

    Raises:
        RuntimeError: The demo ended before it served its page, or the picture is too large to be kept.
    """
    with TemporaryDirectory(prefix="rillcast-picture-") as folder:
        command = [sys.executable, "-m", "rillcast", "demo", "--port", "0", "--speed", str(_SPEED), "--workdir", folder]
        demo = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT)
        try:
            image = _taken(_address(demo))
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(_STOP_TIMEOUT_S)
    small = smaller(image)
    if len(small) > LIMIT_BYTES:
        raise RuntimeError(f"the picture has {len(small):,} bytes, at most {LIMIT_BYTES:,} are kept in the repository")
    PICTURE.write_bytes(small)
    print(f"{PICTURE.relative_to(ROOT)}: {len(small):,} bytes")
    return 0


def smaller(image: bytes) -> bytes:
    """Return a PNG with a palette of 256 colours, which the page's few colours fit."""
    with Image.open(io.BytesIO(image)) as picture:
        reduced = picture.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    reduced.save(packed, "PNG", optimize=True)
    return packed.getvalue()


def _address(demo: subprocess.Popen[str]) -> str:
    """Return the address of the page, once the demo says it; its messages are passed on."""
    assert demo.stderr is not None
    overdue = threading.Timer(_START_TIMEOUT_S, demo.kill)
    overdue.start()
    try:
        for line in demo.stderr:
            print(line, end="", file=sys.stderr)
            if found := re.search(r"at (http://\S+)", line):
                return found[1]
    finally:
        overdue.cancel()
    raise RuntimeError(f"the demo ended before it served its page (exit code {demo.wait()})")


def _taken(address: str) -> bytes:
    with running_browser() as page, TemporaryDirectory(prefix="rillcast-picture-") as folder:
        page.resize(*SIZE, scheme="light")
        page.open(address)
        while _stepped(address) < _EVENTS:
            page.evaluate("new Promise(done => setTimeout(done, 500))")
        page.wait_for("document.getElementById('link').textContent.trim() === 'Live'")
        page.wait_for("document.querySelectorAll('#grid .card path.actual').length >= 8")
        return page.screenshot(Path(folder) / "page.png")


def _stepped(address: str) -> float:
    with urllib.request.urlopen(f"{address.rstrip('/')}/metrics", timeout=10) as answer:  # noqa: S310  loopback
        values = re.findall(r"^rillcast_forecasts_total\S* (\S+)$", answer.read().decode(), re.MULTILINE)
    return sum(map(float, values))


if __name__ == "__main__":
    sys.exit(main())
