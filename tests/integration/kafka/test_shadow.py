"""A shadow on a real broker: it is compared, publishes nothing, and its failure does not touch the serving model."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from rillcast.bundle.registry.model_registry import ModelRegistry
from rillcast_training.model.forecaster import Forecaster
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.rollouts import expect, served_by
from tests.support.service_process import ServiceProcess, service
from tests.support.toy import ToyGraph, toy_bundle
from tests.support.transports import CLIENTS
from tests.support.unrolls import hourly_forecaster, some_streams, write_bundle
from tests.support.workers import observation

PARTITIONS: Final = 2
NOON: Final = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
POISON: Final = 9_000


def settings_of(kafka: KafkaCluster, client: str, folder: Path, live: bytes, shadow: bytes) -> dict[str, object]:
    """Put two models into a registry, and return the settings of a service that has one of them as its shadow."""
    registry = ModelRegistry.at(str(folder / "registry"))
    for data, alias in ((live, "live"), (shadow, "shadow")):
        registry.promote(registry.push(data, NOON)[0].model_id, NOON, alias=alias)
    return {
        "model": f"{folder / 'registry'}@live",
        "model_cache": folder / "cache",
        "rollout.shadow": f"{folder / 'registry'}@shadow",
        "rollout.poll_interval_s": 0.2,
        "kafka.client": client,
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": unique("group"),
        "input.topic": kafka.create_topic("observations", PARTITIONS),
        "output.topic": kafka.create_topic("forecasts", PARTITIONS),
        "dead_letters.topic": kafka.create_topic("dead-letters", 1),
        "worker.delivery": "exactly_once",
        "worker.commit_interval_s": 0.1,
    }


def compared(process: ServiceProcess, what: str, role: str, model_id: str, horizon: str = "1", side: str = "") -> float:
    """Return a sum of the comparison."""
    more = f',side="{side}"' if side else ""
    labels = f'horizon="{horizon}",model_id="{model_id}",role="{role}"{more}'
    return process.metric(f"rillcast_compared_{what}_total{{{labels}}}")


def offline_scores(forecaster: Forecaster, ds: np.ndarray, y: np.ndarray) -> Mapping[str, np.ndarray]:
    """Return the columns of `score` of streams that are stepped offline, in PyTorch."""
    rows, scores = forecaster.initial_rows(ds.shape[1]), []
    with torch.no_grad():
        for t in range(ds.shape[0]):
            outputs, rows = forecaster.step(torch.from_numpy(ds[t]), torch.from_numpy(y[t]), rows)
            scores.append(outputs.score.numpy())
    return dict(zip(forecaster.forecast_scores.names, np.concatenate(scores).T, strict=True))


@pytest.mark.parametrize("client", CLIENTS)
def test_a_shadow_is_compared_on_every_event_as_an_offline_unroll_scores_it_and_publishes_nothing(
    client: str, kafka: KafkaCluster, tmp_path: Path
) -> None:
    models = {"live": hourly_forecaster(hidden=8), "shadow": hourly_forecaster(hidden=8, seed=1)}
    data = {role: write_bundle(model, tmp_path / role).read_bytes() for role, model in models.items()}
    settings = settings_of(kafka, client, tmp_path, data["live"], data["shadow"])
    registry = ModelRegistry.at(str(tmp_path / "registry"))
    ids = {role: registry.resolve(role) for role in models}
    ds, y = some_streams(steps=260, streams=8)
    events = [
        (f"s{stream}", json.dumps({"unique_id": f"s{stream}", "ds": int(ds[t, stream]), "y": float(y[t, stream])}))
        for t in range(ds.shape[0])
        for stream in range(ds.shape[1])
    ]
    expected = {role: offline_scores(model, ds, y) for role, model in models.items()}
    scored = int(np.count_nonzero(~np.isnan(expected["shadow"]["pinball"])))
    with service(settings, tmp_path) as process:
        following = f'rillcast_model_warm_up_partitions{{model_id="{ids["shadow"]}"}}'
        process.wait_until(lambda: process.metric(following) == PARTITIONS, "the shadow follows")
        process.wait_until(lambda: process.log.count("following from offset 0") == PARTITIONS, "from the first event")
        topic = str(settings["input.topic"])
        kafka.produce(topic, [record.encode() for _, record in events], [name.encode() for name, _ in events])
        process.wait_until(
            lambda: compared(process, "scored_forecasts", "shadow", ids["shadow"]) >= scored, "every event compared"
        )
        process.wait_until(
            lambda: sum(kafka.committed(str(settings["kafka.group_id"]), topic).values()) == len(events), "committed"
        )
        for role, columns in expected.items():
            for name, values in columns.items():
                kind, _, slots = name.partition("_")
                where = (role, ids[role], slots or "1")
                known = values[~np.isnan(values)]
                if kind == "covered":
                    assert compared(process, "scored_forecasts", *where) == known.size, (role, name)
                    assert compared(process, "covered_forecasts", *where) == pytest.approx(known.sum(), abs=3)
                elif kind == "bias":
                    over, under = (compared(process, "forecast_error", *where, side) for side in ("over", "under"))
                    assert over == pytest.approx(known.clip(min=0).sum(), rel=1e-3, abs=1e-3), (role, name)
                    assert under == pytest.approx(-known.clip(max=0).sum(), rel=1e-3, abs=1e-3), (role, name)
                else:
                    what = {"pinball": "pinball_loss", "naive": "naive_error"}[kind]
                    assert compared(process, what, *where) == pytest.approx(known.sum(), rel=1e-3), (role, name)
        assert process.metric("rillcast_shadow_drops_total") == 0
        assert process.metric("rillcast_model_swap_pending_seconds") == 0
        assert process.stop() == 0, process.log[-4000:]
    forecasts = [json.loads(record.value or b"") for record in kafka.read_all(str(settings["output.topic"]))]
    assert len(forecasts) == len(events)
    assert len({(each["source"]["partition"], each["source"]["offset"]) for each in forecasts}) == len(events)
    assert {each["model"].rpartition("@")[2] for each in forecasts} == {ids["live"]}


def poisonable() -> bytes:
    """Return another toy, whose graph cannot be run where an observation is `POISON`."""
    toy = ToyGraph(multiplier=37)
    node = helper.make_node
    toy.initializers += [
        numpy_helper.from_array(np.array(POISON, np.int64), "poison"),
        numpy_helper.from_array(np.zeros(1, np.int64), "only"),
    ]
    [forecast] = [each for each in toy.nodes if each.output[0] == "forecast"]
    forecast.output[0] = "unharmed"
    toy.nodes += [
        node("Equal", ["y_int", "poison"], ["poisoned"]),
        node("Cast", ["poisoned"], ["index"], to=TensorProto.INT64),
        node("Gather", ["only", "index"], ["nothing"], axis=0),  # there is no second one
        node("Cast", ["nothing"], ["nothing_float"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["nothing_float", "last_axis"], ["nothing_column"]),
        node("Unsqueeze", ["nothing_column", "last_axis"], ["nothing_block"]),
        node("Add", ["unharmed", "nothing_block"], ["forecast"]),
    ]
    return toy.build()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_shadow_that_fails_is_closed_and_the_model_that_serves_goes_on(
    client: str, kafka: KafkaCluster, tmp_path: Path
) -> None:
    settings = settings_of(kafka, client, tmp_path, ToyGraph().build(), poisonable())
    settings |= {"rollout.retry_s": 5, "rollout.warm_up": "retained"}
    topic, group = str(settings["input.topic"]), str(settings["kafka.group_id"])
    live_id = toy_bundle().metadata.model_id
    shadow_id = ModelRegistry.at(str(tmp_path / "registry")).resolve("shadow")

    def put(values: list[int]) -> None:
        names = [f"s{number % 7}" for number in range(len(values))]
        records = [observation(name, y) for name, y in zip(names, values, strict=True)]
        kafka.produce(topic, records, [name.encode() for name in names])

    def committed() -> int:
        return sum(kafka.committed(group, topic).values())

    with service(settings, tmp_path) as process:
        lag = f'rillcast_model_warm_up_lag_records{{model_id="{shadow_id}"}}'
        following = f'rillcast_model_warm_up_partitions{{model_id="{shadow_id}"}}'
        put([1 + number % 8_000 for number in range(3_000)])
        process.wait_until(
            lambda: committed() == 3_000 and process.metric(following) > 0 == process.metric(lag), "the shadow keeps up"
        )
        assert process.metric("rillcast_shadow_drops_total") == 0
        put([1 + number % 8_000 for number in range(500)] + [POISON] * 7 + [1 + n % 8_000 for n in range(500)])
        process.wait_until(lambda: process.metric("rillcast_shadow_drops_total") >= 2, "it was closed twice")
        process.wait_until(lambda: committed() == 4_007, "every event committed")
        assert process.get("/readyz")[0] == 200
        assert "the shadow, failed" in process.log
        assert process.stop() == 0, process.log[-4000:]
    events = kafka.read_all(topic)
    expected = expect((((e.partition, e.offset), e.value or b"") for e in events), {live_id: 31})
    forecasts = [(f.key, f.value or b"") for f in kafka.read_all(str(settings["output.topic"]))]
    assert len(forecasts) == len(events), "none is lost, none is doubled"
    assert served_by(forecasts, expected).keys() == expected.keys()
