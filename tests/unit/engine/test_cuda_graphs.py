"""CUDA graphs without a GPU: a session on the CPU provider runs as often as ONNX Runtime does for a capture."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
import pytest

from rillcast.engine.batcher import Batching
from rillcast.engine.cuda_graphs import RUN_OPTION
from rillcast.engine.device import Device
from rillcast.engine.step_engine import Outcome, StepEngine
from rillcast.errors import DeviceError
from rillcast.events import EventBatch
from tests.support.toy import toy_bundle, unroll

BUCKETS = (2, 8)


class Capturing:
    """A session that executes the first run of each number in each thread twice, as the CUDA provider does.

    A number stands for one set of addresses, which is checked: a replay would go to the old ones.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.captured: dict[tuple[int, int], ort.IOBinding] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: ort.IOBinding, options: ort.RunOptions | None = None) -> None:
        assert options is not None, "a run without a number is number 0, which is ONNX Runtime's own"
        key = threading.get_ident(), int(options.get_run_config_entry(RUN_OPTION))
        if key not in self.captured:
            self.captured[key] = binding
            self._session.run_with_iobinding(binding, options)
        assert self.captured[key] is binding, "a graph replays into the buffers that it was captured over"
        self._session.run_with_iobinding(binding, options)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[Capturing]:
    """Make sessions with fixed buffers capture; return them in the order of their creation."""
    made: list[Capturing] = []
    plain: Callable[..., ort.InferenceSession] = Device.session

    def session(self: Device, model: bytes, *, fixed_buffers: bool = False) -> ort.InferenceSession | Capturing:
        loaded = plain(self, model, fixed_buffers=fixed_buffers)
        if not fixed_buffers:
            return loaded
        made.append(Capturing(loaded))
        return made[-1]

    monkeypatch.setattr(Device, "session", session)
    return made


class Streams:
    """An engine, and the state that each of its streams must have."""

    def __init__(self, engine: StepEngine) -> None:
        self.engine = engine
        self._offset = 0
        self._seen: dict[int, list[int]] = {}

    def step(self, streams: list[int], y: int) -> None:
        n = len(streams)
        ids, ds, values = [f"s{s}" for s in streams], np.zeros(n, np.int64), np.full(n, y, np.float32)
        result = self.engine.step(EventBatch.of(ids, ds, values, first_offset=self._offset))
        self._offset += n
        assert (result.outcome == Outcome.STEPPED).all()
        for stream, state in zip(streams, result.forecast[:, 0, 0], strict=True):
            self._seen.setdefault(stream, []).append(y)
            assert int(state) == unroll(self._seen[stream])[-1], f"stream {stream}"


def capturing_engine() -> StepEngine:
    return StepEngine(toy_bundle(), Device("cpu", cuda_graphs=True), batching=Batching(8, BUCKETS))


def test_a_capture_advances_no_stream(captures: list[Capturing]) -> None:
    streams = Streams(capturing_engine())
    for number, chosen in enumerate(([1, 2], [3], [1, 2, 3, 4, 5], [2, 3, 4, 5, 6, 7, 8, 9], [9], [1, 2, 3]), start=1):
        streams.step(chosen, number)
    (session,) = captures
    assert len(session.captured) == len(BUCKETS)


def test_each_bucket_has_its_own_number(captures: list[Capturing]) -> None:
    streams = Streams(capturing_engine())
    for chosen in ([1], [1, 2, 3], [2, 1], [4, 5, 6, 7]):
        streams.step(chosen, 3)
    (session,) = captures
    assert sorted(number for _, number in session.captured) == [1, 2]


def test_each_thread_captures_for_itself(captures: list[Capturing]) -> None:
    """The service steps small polls in its loop and large ones in a thread; both use one engine in sequence."""
    streams = Streams(capturing_engine())
    failed: list[BaseException] = []

    def elsewhere() -> None:
        try:
            streams.step([1, 2], 5)
        except BaseException as error:  # noqa: BLE001  it is raised again in the test's thread
            failed.append(error)

    streams.step([1, 2], 4)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    streams.step([1, 2], 6)
    (session,) = captures
    assert len({thread for thread, _ in session.captured}) == 2


def test_no_other_thread_loads_a_model_during_a_capture(
    captures: list[Capturing], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A capture is global to the process: an allocation of another thread fails, and spoils it."""
    streams = Streams(capturing_engine())
    capturing, loaded = threading.Event(), threading.Event()
    plain = Capturing.run_with_iobinding

    def slowly(self: Capturing, binding: ort.IOBinding, options: ort.RunOptions | None = None) -> None:
        if not self.captured:
            capturing.set()
            assert not loaded.wait(0.5), "another model was loaded during the capture"
        plain(self, binding, options)

    def load() -> None:
        capturing.wait(30)
        Device("cpu", cuda_graphs=True).upload(np.zeros(1))
        loaded.set()

    monkeypatch.setattr(Capturing, "run_with_iobinding", slowly)
    thread = threading.Thread(target=load)
    thread.start()
    streams.step([1, 2], 4)
    thread.join()
    assert loaded.is_set()


def test_state_that_moved_is_captured_again(captures: list[Capturing], monkeypatch: pytest.MonkeyPatch) -> None:
    # On the CPU the state never moves; on a GPU it grows by doubling.
    monkeypatch.setattr("rillcast.engine.residents.room", lambda *arguments: arguments[-1])
    streams = Streams(capturing_engine())
    for first in range(0, 2000, 8):
        streams.step(list(range(first, first + 8)), 5)
    streams.step([0, 1999], 6)
    (session,) = captures
    numbers = [number for _, number in session.captured]
    assert len(numbers) > len(BUCKETS), "the state has moved"
    assert sorted(numbers) == list(range(1, len(numbers) + 1)), "no number is used twice"


def test_nothing_is_captured_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    plain = ort.InferenceSession.run_with_iobinding

    def run(self: ort.InferenceSession, binding: ort.IOBinding, options: ort.RunOptions | None = None) -> None:
        given.append(options)
        plain(self, binding, options)

    monkeypatch.setattr(ort.InferenceSession, "run_with_iobinding", run)
    streams = Streams(StepEngine(toy_bundle(), Device("cpu"), batching=Batching(8, BUCKETS)))
    streams.step([1, 2, 3], 1)
    assert given
    assert set(given) == {None}


@pytest.mark.parametrize("graphs", [True, "auto"])
def test_a_model_that_cannot_be_captured_runs_without_unless_graphs_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, graphs: bool | Literal["auto"]
) -> None:
    plain = Device.session

    def session(self: Device, model: bytes, *, fixed_buffers: bool = False) -> ort.InferenceSession:
        if fixed_buffers:
            raise DeviceError("a node runs on the CPU")
        return plain(self, model)

    monkeypatch.setattr(Device, "session", session)
    on = Device("cpu", cuda_graphs=graphs)
    if graphs is True:
        with pytest.raises(DeviceError, match="a node runs on the CPU"):
            StepEngine(toy_bundle(), on, batching=Batching(8, BUCKETS))
        return
    streams = Streams(StepEngine(toy_bundle(), on, batching=Batching(8, BUCKETS)))
    for number, chosen in enumerate(([1, 2], [3, 1, 2], [1])):
        streams.step(chosen, number + 1)
    assert "without CUDA graphs, because it cannot be captured: a node runs on the CPU" in caplog.text


def test_a_failed_capture_says_what_to_do(captures: list[Capturing], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    streams = Streams(capturing_engine())
    monkeypatch.setattr(Capturing, "run_with_iobinding", fail)
    with pytest.raises(DeviceError, match=r"or set cuda_graphs=false\): operation not permitted"):
        streams.step([1], 1)
    assert captures


def test_runs_of_events_are_never_captured(captures: list[Capturing]) -> None:
    """Their shapes differ from call to call, and their graph loops."""
    bundle = toy_bundle(sequence=True)
    StepEngine(bundle, Device("cpu", cuda_graphs=True), batching=Batching(8, BUCKETS))
    assert len(captures) == 1


def test_the_provider_is_asked_for_graphs_only_over_fixed_buffers() -> None:
    plain = [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]
    captured = [("CUDAExecutionProvider", {"use_tf32": "0", "enable_cuda_graph": "1"}), "CPUExecutionProvider"]
    on = Device("cuda", cuda_graphs=True)
    assert on.providers(fixed_buffers=True) == captured
    assert on.providers() == plain
    assert Device("cuda").providers(fixed_buffers=True) == plain
    assert Device("cpu").providers(fixed_buffers=True) == ["CPUExecutionProvider"]
