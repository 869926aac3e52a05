"""The report on a GPU: what differs is found, and what follows is said."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rillcast.benchmarks import gpu, gpu_page
from rillcast.benchmarks.gpu_numbers import Amount, Calls, Difference, Measurement
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine, StepResult
from tests.support.toy import toy_bundle

WORKS = {"loads": True, "computes": True, "reason": "", "page_locked": True}


def results(*, odd: bool) -> Iterator[StepResult]:
    engine = StepEngine(toy_bundle(), Device("cpu"), batching=Batching(64))
    for events in Calls(engine.bundle.metadata.frequency, Amount(50, 12), odd=odd):
        yield engine.step(events)


@pytest.mark.parametrize("odd", [False, True])
def test_equal_results_agree(odd: bool) -> None:
    difference = Difference()
    for expected, found in zip(results(odd=odd), results(odd=odd), strict=True):
        difference.add(expected, found)
    figures = difference.figures()
    assert figures["agrees"]
    assert figures["values"] > 0
    assert figures["largest"] == 0


def test_odd_events_are_missing_huge_and_late() -> None:
    calls = list(Calls(toy_bundle().metadata.frequency, Amount(1000, 3), odd=True))
    y = np.concatenate([events.y for events in calls])
    assert np.isnan(y).any()
    assert (y > 1e19).any()
    before, after = calls[0], calls[2]
    assert (after.ds < before.ds.max() + 1).any()


@pytest.mark.parametrize(("output", "count"), [("forecast", "share_beyond_0.0001"), ("status", "other_status")])
def test_one_wrong_output_is_found(output: str, count: str) -> None:
    difference = Difference()
    for expected, found in zip(results(odd=False), results(odd=False), strict=True):
        changed = getattr(found, output)
        changed[0] = changed[0] * 1.5 + 1
        difference.add(expected, found)
    figures = difference.figures()
    assert not figures["agrees"]
    assert figures[count] > 0


def test_a_nan_on_one_side_is_found() -> None:
    difference = Difference()
    expected, found = next(results(odd=False)), next(results(odd=False))
    found.forecast[0, 0, 0] = np.nan
    difference.add(expected, found)
    assert difference.figures()["other_nan"] == 1
    assert not difference.figures()["agrees"]


def test_nothing_compared_is_no_agreement() -> None:
    assert not Difference().figures()["agrees"]


def advice(found: dict[str, Any]) -> str:
    figures = {"found": {"probe": WORKS, **found}, "comparable": True}
    return "\n".join(gpu_page.advice(figures))


def test_wrong_numbers_come_first() -> None:
    assert 'set `device = "cpu"`' in advice({"parity plain": {"agrees": False}})
    only_graphs = advice({"parity plain": {"agrees": True}, "parity graphs": {"agrees": False}})
    assert "set `cuda_graphs = false`" in only_graphs
    assert "device" not in only_graphs
    assert "keep `tf32 = false`" in advice({"parity plain tf32": {"agrees": False}})
    assert advice({"parity plain": {"agrees": True}, "parity graphs": {"agrees": True}}) == ""


def test_settings_follow_from_rates() -> None:
    rates = {
        "steps per second batch 64": {"cpu": 80.0, "plain": 50.0, "graphs": 90.0, "graphs_pageable": 90.0},
        "steps per second batch 256": {"cpu": 80.0, "plain": 90.0, "graphs": 200.0, "graphs_pageable": "failed"},
        "steps per second batch 1024": {"cpu": 80.0, "plain": 90.0, "graphs": 205.0},
    }
    said = advice(rates)
    assert "CUDA graphs pay" in said
    assert "Page-locked memory does not pay" in said
    assert "Set `worker.batch_rows = 256`" in said
    assert "from batches of 64 on" in said
    assert "runs have 3.00 of the rate of waves" in advice({"catch-up of 4 streams": {"runs": 30.0, "waves": 10.0}})
    slower = {name: {"cpu": 900.0, "plain": 90.0, "graphs": 90.0} for name in rates}
    assert "nowhere faster" in advice(slower)
    assert "set `cuda_graphs = false`" in advice(slower)


def test_members_share_a_gpu_where_that_pays() -> None:
    served = {"service cpu": {"events_per_second": 100.0}, "service cuda": {"events_per_second": 150.0}}
    assert "1.50 of the rate on the CPU: it pays" in advice(served)
    assert "let members share it" in advice(served | {"service cuda, 2 members": {"events_per_second": 280.0}})
    assert "one member for each GPU" in advice(served | {"service cuda, 2 members": {"events_per_second": 151.0}})


def test_numbers_of_a_gpu_that_computes_none_say_nothing() -> None:
    probe = WORKS | {"computes": False, "reason": "the GPU computed 0 in a probe, expected 1"}
    found = {"probe": probe, "parity plain": {"agrees": None}, "service cuda": {"error": "refused"}}
    said = "\n".join(gpu_page.advice({"found": found, "comparable": False}))
    assert "**not compared**: the GPU computed 0" in said
    assert "`service cuda` has no result: refused" in said
    assert "pay" not in said


def _raise() -> dict[str, Any]:
    raise KeyError("missing")


def _die() -> dict[str, Any]:
    os._exit(7)


def one_after_another() -> Iterator[Measurement]:
    yield "first", lambda: {"value": 1}
    yield "second", _raise
    yield "third", lambda: {"value": 3}
    yield "fourth", _die


def test_a_failure_is_recorded_and_the_next_goes_on() -> None:
    found = dict(gpu._in_process(gpu.Part("part", one_after_another, 60), 60))
    assert found["first"] == {"value": 1}
    assert found["second"] == {"error": "KeyError: 'missing'"}
    assert found["third"] == {"value": 3}
    assert found["part"] == {"error": "its process ended with exit code 7"}


def test_without_cuda_nothing_else_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_in_process", lambda *_: iter([("probe", {"loads": False, "reason": "no driver"})]))
    figures = gpu.measure(argparse.Namespace(model="universal:1h", short=True, limit_s=60.0))
    assert all(
        each == {"error": "not run: CUDA does not work here"}
        for name, each in figures["found"].items()
        if name != "probe"
    )
    gpu.show(figures)
    page = capsys.readouterr().out
    assert "- CUDA does not work here: no driver." in page
    assert json.loads(page.split("```json\n")[1].split("\n```")[0])["found"] == figures["found"]
