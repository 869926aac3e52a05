"""A forecaster becomes a bundle, or nothing does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from rillcast.bundle.bundle import Bundle, Status
from rillcast.errors import ParityError
from rillcast_training.export import bundle as exporting
from rillcast_training.export import parity
from rillcast_training.export.bundle import export
from rillcast_training.model.cells import CELLS
from rillcast_training.model.forecaster import Forecaster
from tests.support.forecasters import HOUR_MS, brief_parity, random_forecaster, small_config


@pytest.mark.parametrize(("cell", "layers"), [(cell, 1) for cell in sorted(CELLS)] + [("lstm", 2)])
def test_the_exported_file_equals_the_module(cell: str, layers: int, tmp_path: Path) -> None:
    forecaster = random_forecaster(small_config(cell=cell, layers=layers))
    report = export(forecaster, tmp_path / "m.onnx", name="m")
    assert 0 < report.worst <= parity.TOLERANCE
    assert report.steps >= 400 * sum(parity.BATCHES)
    bundle = Bundle.load(tmp_path / "m.onnx")
    assert bundle.has_anomaly
    assert bundle.has_calibrate
    by_horizon = (kind + horizon for kind in ("pinball", "covered", "bias") for horizon in ("", "_2", "_5"))
    assert bundle.metadata.scores == (*by_horizon, "naive")
    assert bundle.metadata.cell == cell
    assert list(tmp_path.iterdir()) == [tmp_path / "m.onnx"]


def test_a_bundle_of_calendar_months_equals_the_module(tmp_path: Path) -> None:
    forecaster = random_forecaster(small_config(freq="1mo", seasons=(12,), context=28, max_gap=28))
    assert export(forecaster, tmp_path / "m.onnx", name="m").worst <= parity.TOLERANCE
    bundle = Bundle.load(tmp_path / "m.onnx")
    assert bundle.metadata.freq == "1mo"
    assert bundle.sequence is not None


@pytest.mark.parametrize("quantiles", [(0.05,), (0.01, 0.6, 0.7, 0.99)])
def test_any_list_of_quantiles_can_be_exported(quantiles: tuple[float, ...], tmp_path: Path) -> None:
    forecaster = random_forecaster(small_config(quantiles=quantiles, horizon=1, seasons=(5,)))
    assert export(forecaster, tmp_path / "m.onnx", name="m").worst <= parity.TOLERANCE


def sabotaged(model: onnx.ModelProto, what: str) -> onnx.ModelProto:
    """Break a graph without breaking the contract."""
    graph = model.graph
    if what == "forecast":
        (bias,) = (tensor for tensor in graph.initializer if tensor.name.endswith("head.out.bias"))
        values = numpy_helper.to_array(bias).copy()
        values[0] += 0.01
        bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    elif what == "clock":  # a period one millisecond short: wrong only at the edges of periods
        divisors = {node.input[1] for node in graph.node if node.op_type == "Div"}
        (constant,) = (tensor for tensor in graph.initializer if tensor.name in divisors and is_hour(tensor))
        constant.CopyFrom(numpy_helper.from_array(np.array(HOUR_MS - 1), constant.name))
    elif what == "calendar":  # a day early: wrong only at the ends of months
        (constant,) = (tensor for tensor in graph.initializer if is_epoch(tensor))
        constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant) - 1, constant.name))
    elif what == "hidden":  # the bug of the trade: the state is never fed back
        (gather,) = (node for node in graph.node if node.name == "state.hidden.gather")
        rows = gather.output[0]
        gather.output[0] = "unused"
        zero = onnx.helper.make_node("Sub", ["unused", "unused"], [rows], name="forgets")
        graph.node.insert(list(graph.node).index(gather) + 1, zero)
    return model


def is_hour(tensor: onnx.TensorProto) -> bool:
    """Whether this is the length of a period."""
    return tensor.data_type == onnx.TensorProto.INT64 and numpy_helper.to_array(tensor).tolist() == HOUR_MS


def is_epoch(tensor: onnx.TensorProto) -> bool:
    """Whether this is the number that the graph adds to a day to count it from a far March 1st."""
    scalar = tensor.data_type == onnx.TensorProto.INT64 and not tensor.dims
    return scalar and int(numpy_helper.to_array(tensor)) > 146_097_000_000


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("forecast", "forecast"),
        ("clock", "clock|status|forecast"),
        ("calendar", "clock|status|forecast|score|anomaly"),
        ("hidden", "forecast|hidden"),
    ],
)
def test_a_graph_that_differs_from_the_module_is_refused_and_leaves_nothing(
    what: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = exporting.to_onnx
    monkeypatch.setattr(exporting, "to_onnx", lambda forecaster: sabotaged(right(forecaster), what))
    path = tmp_path / "m.onnx"
    with pytest.raises(ParityError, match=rf"output '({named})', batch of \d+, step \d+, stream \d+: .* is \S+ of"):
        export(random_forecaster(small_config(freq="1mo" if what == "calendar" else "1h")), path, name="m")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_older_bundle_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"older")
    right = exporting.to_onnx
    monkeypatch.setattr(exporting, "to_onnx", lambda forecaster: sabotaged(right(forecaster), "forecast"))
    with pytest.raises(ParityError):
        export(random_forecaster(small_config()), path, name="m")
    assert path.read_bytes() == b"older"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Forecaster]:
    forecaster = random_forecaster(small_config())
    path = tmp_path_factory.mktemp("bundle") / "m.onnx"
    with brief_parity():
        export(forecaster, path, name="m")
    return path, forecaster


def run_events(
    exported: tuple[Path, Forecaster], events: list[tuple[int, float]], calibrate: float = 1.0
) -> list[dict[str, np.ndarray]]:
    path, forecaster = exported
    session = parity.InPlaceSession(path, forecaster, 2)
    one = np.array([1], dtype=np.int64)
    return [session.run(one, np.array([ds]), np.array([y], dtype=np.float32), calibrate) for ds, y in events]


def test_the_status_names_the_effect_of_an_event(exported: tuple[Path, Forecaster]) -> None:
    warm = [(period * HOUR_MS, float(period % 4)) for period in range(-12, 0)]
    nan = float("nan")
    events = [
        (0, 1.0),
        (HOUR_MS - 1, 2.0),
        (-1, 3.0),
        (HOUR_MS, nan),
        (4 * HOUR_MS, 1.0),
        (4 * HOUR_MS + 13 * HOUR_MS, nan),
    ]
    found = [Status(int(outputs["status"][0])) for outputs in run_events(exported, warm + events)]
    assert found[:11] == [Status.WARMING_UP] * 11
    expected = [Status.OK, Status.OK, Status.DUPLICATE, Status.LATE, Status.MISSING, Status.GAP, Status.WARMING_UP]
    assert found[11:] == expected


def test_only_the_next_period_resolves_a_forecast(exported: tuple[Path, Forecaster]) -> None:
    nan = float("nan")
    events = [(0, 1.0), (HOUR_MS, 2.0), (HOUR_MS, 2.0), (2 * HOUR_MS, nan), (3 * HOUR_MS, 1.0), (5 * HOUR_MS, 1.0)]
    found = run_events(exported, events)
    one_ahead = [np.append(outputs["score"][0, 0:9:3], outputs["anomaly"][0]) for outputs in found]
    resolved = [bool(np.isfinite(values).all()) for values in one_ahead]
    unresolved = [bool(np.isnan(values).all()) for values in one_ahead]
    assert resolved == [False, True, False, False, True, False]
    assert unresolved == [not one for one in resolved]


def test_a_gap_leaves_the_forecasts_that_can_still_be_resolved(exported: tuple[Path, Forecaster]) -> None:
    found = run_events(exported, [(period * HOUR_MS, 1.0) for period in (0, 1, 3, 5, 6)])
    horizons = (1, 2, 5)
    resolved = [
        {h for k, h in enumerate(horizons) if np.isfinite(outputs["score"][0, k:9:3]).all()} for outputs in found
    ]
    assert resolved == [set(), {1}, {2}, {2, 5}, {1, 5}]


def test_a_restart_drops_the_forecasts_before_it(exported: tuple[Path, Forecaster]) -> None:
    restart = 1 + exported[1].config.max_gap + 1
    found = run_events(exported, [(period * HOUR_MS, float(period)) for period in (0, 1, restart, restart + 1)])
    assert np.isnan(found[2]["score"]).all()
    known = {name for name, value in zip(exported[1].scores, found[3]["score"][0], strict=True) if np.isfinite(value)}
    assert known == {"pinball", "covered", "bias", "naive"}  # the further ones were dropped


def test_the_anomaly_grows_with_the_distance_from_the_median(exported: tuple[Path, Forecaster]) -> None:
    history = [(period * HOUR_MS, float(period % 4)) for period in range(30)]
    quantiles = run_events(exported, history)[-1]["forecast"][0, 0]
    scores = []
    for y in (quantiles[1], quantiles[2], quantiles[2] + 100):
        outputs = run_events(exported, [*history, (30 * HOUR_MS, float(y))])[-1]
        scores.append((float(outputs["anomaly"][0]), float(outputs["score"][0, exported[1].scores.index("covered")])))
    anomalies, covered = zip(*scores, strict=True)
    assert anomalies == pytest.approx((0.0, 0.8, 1.0), abs=1e-3)
    assert (covered[0], covered[2]) == (1.0, 0.0)


def test_an_untrained_forecaster_gives_the_seasonal_naive_forecast(tmp_path: Path) -> None:
    torch.manual_seed(0)
    forecaster = Forecaster(small_config()).eval()
    with brief_parity():
        export(forecaster, tmp_path / "m.onnx", name="m")
    history = [(period * HOUR_MS, [3.0, 5.0, 4.0, 9.0][period % 4] + 0.01 * period) for period in range(20)]
    outputs = run_events((tmp_path / "m.onnx", forecaster), history, calibrate=0.0)[-1]
    median = outputs["forecast"][0, :, 1]
    np.testing.assert_allclose(median[:4], [y for _, y in history[-4:]], rtol=1e-6)
    assert median[4] == median[0]
    assert (np.diff(outputs["forecast"][0], axis=1) > 0).all()
