"""Who hears SIGINT and SIGTERM while a command starts, works and starts again."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Collection, Iterator, Mapping

import pytest

from rillcast.bundle.registry.reference import Reference
from rillcast.cli import entry, signals, topic_reading
from rillcast.cli.commands import demo, run
from rillcast.errors import ServedByAnotherKindError
from rillcast.settings import Settings
from rillcast.transports.base import Assignment, AssignmentListener, Polled

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in NUMBERS}
    signals.end_at_once()  # another test of this process may have left its own
    yield
    signals.interruptible()  # forgets a signal
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

    def build_and_run(_settings: Settings, _follows: Mapping[str, Reference], claims_decide: Collection[str]) -> None:
        heard.append(signal.getsignal(signal.SIGTERM))
        signals.on_request_to_stop(lambda: None)
        if claims_decide:
            raise ServedByAnotherKindError("older", "served by an older model")

    monkeypatch.setattr(run, "_build_and_run", build_and_run)
    monkeypatch.setattr("rillcast.cli.flags.with_local_model", lambda settings: settings)
    monkeypatch.setattr("rillcast.observability.logs.configure", lambda *_: None)
    run._serve(Settings(), {"": Reference("registry", "live")})
    assert heard == [signal.SIG_DFL, signal.SIG_DFL]


class Swallowing:
    """A topic without records. A signal comes during its second poll, within a callback that drops exceptions."""

    name = "topic"
    exhausted = False

    def __init__(self, number: int) -> None:
        self.number = number
        self.polls = 0
        self.closed = False

    def open(self, listener: AssignmentListener) -> None:
        listener.on_assigned([Assignment(0, None, 0, 0)])

    def poll(self, _max_records: int, _timeout_s: float) -> Polled:
        self.polls += 1
        if self.polls == 2:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(self.number)
        assert self.polls < 10, "the signal was lost"
        return Polled.empty()

    def group(self) -> object:
        return object()

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_that_a_callback_swallows_ends_the_reading_of_a_topic(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Swallowing(number)
    monkeypatch.setattr("rillcast.transports.connect.open_source", lambda _settings: source)
    signals.interruptible()
    with pytest.raises(signals.Interrupted) as ended:
        list(topic_reading.polls(Settings(), "test", topic="topic", follow=True))
    assert ended.value.exit_code == 128 + number
    assert source.polls == 2
    assert source.closed


def test_the_demo_ends_at_a_signal_that_a_callback_swallows(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        assert len(waits) < 10, "the signal was lost"
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("time.sleep", sleep)
    signals.interruptible()
    demo._wait_for_interrupt()
    assert len(waits) == 1


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_that_is_swallowed_while_the_service_is_built_ends_it(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Service:
        def stop(self) -> None:
            raise AssertionError("no signal comes to it")

        def run(self) -> None:
            raise AssertionError("the signal was lost")

    def build(*_: object, **__: object) -> Service:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        return Service()

    monkeypatch.setattr("rillcast.service.build.build", build)
    signals.interruptible()
    with pytest.raises(signals.Interrupted) as ended:
        run._build_and_run(Settings(), {}, ())
    assert ended.value.exit_code == 128 + number


@pytest.mark.parametrize("number", NUMBERS)
def test_an_interrupted_command_ends_with_the_code_of_its_signal(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_args: object) -> int:
        signal.raise_signal(number)
        return 0

    monkeypatch.setattr("rillcast.cli.commands.config.run", interrupted)
    signals.interruptible()
    assert entry.main(["config"]) == 128 + number
