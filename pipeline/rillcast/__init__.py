"""Streaming time-series forecasting: one recurrent step per event, state kept on the device.

    from rillcast import Bundle, EventBatch, StepEngine, choose_device

    engine = StepEngine(Bundle.load("universal:1h"), choose_device("cpu"))
    result = engine.step(EventBatch.of(["web-1"], [1_714_564_800_000], [0.42]))
    result.forecast  # (events, periods ahead, quantiles)

The names in `__all__` are the public API. Every other name and module is private and may change in any release.

Invariant: a name is loaded when it is first used, so `import rillcast.errors` loads no ONNX Runtime. Nothing in this
package imports torch or `rillcast_training`.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rillcast.bundle.bundle import Bundle, BundleMetadata, StateSpec, Status, seal
    from rillcast.codecs.forecasts.reader import Forecast, decode_forecast
    from rillcast.engine.device import Device
    from rillcast.engine.device import choose as choose_device
    from rillcast.engine.step_engine import Outcome, StepEngine, StepResult
    from rillcast.errors import BundleError, DataError, DeviceError, RillcastError, SettingsError
    from rillcast.events import EventBatch
    from rillcast.settings import Settings
    from rillcast.settings import load as load_settings

    __version__: str

# From 1.31 on the packages of ONNX Runtime report its use to Microsoft unless this is set when it is loaded. This
# module runs before every other one of the package.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Bundle",
    "BundleError",
    "BundleMetadata",
    "DataError",
    "Device",
    "DeviceError",
    "EventBatch",
    "Forecast",
    "Outcome",
    "RillcastError",
    "Settings",
    "SettingsError",
    "StateSpec",
    "Status",
    "StepEngine",
    "StepResult",
    "__version__",
    "choose_device",
    "decode_forecast",
    "load_settings",
    "seal",
]

# Public name -> the module that has it, and its name there.
_HOMES: Final = {
    "Bundle": ("rillcast.bundle.bundle", "Bundle"),
    "BundleError": ("rillcast.errors", "BundleError"),
    "BundleMetadata": ("rillcast.bundle.bundle", "BundleMetadata"),
    "DataError": ("rillcast.errors", "DataError"),
    "Device": ("rillcast.engine.device", "Device"),
    "DeviceError": ("rillcast.errors", "DeviceError"),
    "EventBatch": ("rillcast.events", "EventBatch"),
    "Forecast": ("rillcast.codecs.forecasts.reader", "Forecast"),
    "Outcome": ("rillcast.engine.step_engine", "Outcome"),
    "RillcastError": ("rillcast.errors", "RillcastError"),
    "Settings": ("rillcast.settings", "Settings"),
    "SettingsError": ("rillcast.errors", "SettingsError"),
    "StateSpec": ("rillcast.bundle.bundle", "StateSpec"),
    "Status": ("rillcast.bundle.bundle", "Status"),
    "StepEngine": ("rillcast.engine.step_engine", "StepEngine"),
    "StepResult": ("rillcast.engine.step_engine", "StepResult"),
    "choose_device": ("rillcast.engine.device", "choose"),
    "decode_forecast": ("rillcast.codecs.forecasts.reader", "decode_forecast"),
    "load_settings": ("rillcast.settings", "load"),
    "seal": ("rillcast.bundle.bundle", "seal"),
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("rillcast")
    elif name in _HOMES:
        module, attribute = _HOMES[name]
        value = getattr(import_module(module), attribute)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
