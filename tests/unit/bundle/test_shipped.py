"""Bundles of the package: which files are one."""

from __future__ import annotations

from pathlib import Path

import pytest

from rillcast.bundle import shipped


def test_what_a_killed_export_has_left_is_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("1h.onnx", "1d.onnx", ".1w.123.partial.onnx"):
        (tmp_path / name).touch()
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    assert shipped.names() == ["universal:1h", "universal:1d"]
    assert shipped.locate("universal:24h") == tmp_path / "1d.onnx"
