"""Who hears SIGINT and SIGTERM while a command starts, works and starts again."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from rillcast.bundle.registry.reference import Reference
from rillcast.cli import signals
from rillcast.cli.commands import run
from rillcast.errors import ServedByAnotherKindError
from rillcast.settings import Settings

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in NUMBERS}
    signals.end_at_once()  # another test of this process may have left its own
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_the_first_signal_asks_and_a_sigint_after_it_interrupts() -> None:
    asked: list[str] = []
    signals.on_request_to_stop(lambda: asked.append("stop"))
    for _ in range(2):
        signal.raise_signal(signal.SIGTERM)
    assert asked == ["stop", "stop"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_no_ended_worker_swallows_the_signal_while_another_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[object] = []

    def build_and_run(_settings: Settings, _follows: Reference | None, *, claims_decide: bool) -> None:
        heard.append(signal.getsignal(signal.SIGTERM))
        signals.on_request_to_stop(lambda: None)
        if claims_decide:
            raise ServedByAnotherKindError("older", "served by an older model")

    monkeypatch.setattr(run, "_build_and_run", build_and_run)
    monkeypatch.setattr("rillcast.cli.flags.with_local_model", lambda settings: settings)
    monkeypatch.setattr("rillcast.observability.logs.configure", lambda *_: None)
    run._serve(Settings(), Reference("registry", "live"))
    assert heard == [signal.SIG_DFL, signal.SIG_DFL]
