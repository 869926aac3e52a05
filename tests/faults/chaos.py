"""`python -m tests.faults.chaos`: the chaos suite on the command line. `docs/chaos.md` is the manual.

For each client, store and delivery: its own broker, a run, and a line

    librdkafka kafka exactly_once seed=7: kills / events / lost / doubled / wrong = 50 / 1,000,000 / 0 / 0 / 0

and a table at the end. Exit code 0 if every zero is a zero; 1 after a finding; 3 if the harness itself failed and
nothing else was found. In both cases the logs stay, and their folder is named.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import structs

from tests.faults.fleet import Finding
from tests.faults.load import raw_load, tables_load, toy_load
from tests.faults.model_loads import experts_load, gru_load, network_load
from tests.faults.network import proxied_cluster
from tests.faults.older import extract
from tests.faults.overrun import within
from tests.faults.plan import NETWORK_FAULTS, REPLICA_FAULTS, Fault, Plan
from tests.faults.report import Combination, Report
from tests.faults.results import HARNESS_FAILED, Outcome, Result, ResultsFile, Task, exit_code, table
from tests.faults.run import Run
from tests.support.checkout import running_commit
from tests.support.kafka_cluster import replicated_cluster, restartable_cluster

CLIENTS: Final = ("librdkafka", "kafka-python")
STORES: Final = ("kafka", "local")
DELIVERIES: Final = ("exactly_once", "at_least_once")
LOADS: Final = {
    "toy": toy_load,
    "gru": gru_load,
    "raw": raw_load,
    "tables": tables_load,
    "experts": experts_load,
    "network": network_load,
}
BROKERS: Final = {"one": restartable_cluster, "three": replicated_cluster, "proxied": proxied_cluster}
_DEFAULT_BROKERS: Final = ("one", "three")  # the proxy has to be built first
_KILLS: Final = 50  # of a run; more are split into runs with seeds of their own
_EVENTS_PER_KILL: Final = {
    "toy": 20_000,
    "gru": 2_000,
    "raw": 20_000,
    "tables": 20_000,
    "experts": 2_000,
    "network": 2_000,
}
_INTERRUPTED: Final = 130
_LIMIT_S: Final = 7_200.0  # of a run: minutes on an idle machine, more than an hour on one with much other work


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    root = argparse.ArgumentParser(prog="chaos", description="Kill, stop and restart everything; lose nothing.")
    root.add_argument(
        "--kills", type=int, default=_KILLS, help=f"kill -9 per line ({_KILLS}); more than {_KILLS} are split into runs"
    )
    root.add_argument("--events", type=int, help="events per run (20,000 per kill; gru, experts and network: 2,000)")
    root.add_argument("--seed", type=int, help="of the schedule and the events; drawn and printed if not given")
    root.add_argument("--client", action="append", choices=CLIENTS, help="only this client; may be repeated")
    root.add_argument("--store", action="append", choices=STORES, help="only this store; may be repeated")
    root.add_argument("--delivery", action="append", choices=DELIVERIES, help="only this delivery; may be repeated")
    root.add_argument("--load", action="append", choices=LOADS, help="only this load; may be repeated")
    root.add_argument(
        "--brokers", action="append", choices=BROKERS, help="one; three; proxied: three, with faults of the network"
    )
    root.add_argument(
        "--upgrade-from", metavar="COMMIT", default="", help="members begin with this release, and are swapped"
    )
    root.add_argument("--all", action="store_true", help="go on with the other lines after a finding")
    root.add_argument("--results", type=Path, help="file of results; runs that it has are not repeated")
    root.add_argument(
        "--limit-s", type=float, default=_LIMIT_S, help=f"seconds after which a run is given up ({_LIMIT_S:g})"
    )
    root.add_argument("--quiet", action="store_true", help="one line per run, nothing else unless it fails")
    return root


def tasks(args: argparse.Namespace, seed: int) -> list[Task]:
    """Return the runs: all lines with the first seed, then all lines with the next, until each has its kills."""
    lines = _lines(args)
    return [
        Task(
            client=client,
            store=store,
            delivery=delivery,
            load=load,
            seed=seed + number,
            kills=kills,
            events=args.events or kills * _EVENTS_PER_KILL[load],
            brokers=brokers,
            upgrade_from=args.upgrade_from,
        )
        for number, kills in enumerate(_parts(args.kills))
        for client, store, delivery, load, brokers in lines
        if load in (args.load or LOADS) and brokers in (args.brokers or _DEFAULT_BROKERS)
    ]


def _lines(args: argparse.Namespace) -> list[tuple[str, str, str, str, str]]:
    """Return client, store, delivery, load and brokers of each line."""
    clients, deliveries = args.client or CLIENTS, args.delivery or DELIVERIES
    stores, store, delivery = args.store or STORES, (args.store or STORES)[0], (args.delivery or DELIVERIES)[0]
    lines = [(*each, "toy", "one") for each in itertools.product(clients, stores, deliveries)]
    lines += [(client, store, delivery, load, "one") for load in list(LOADS)[1:] for client in clients]
    clusters = itertools.product(clients, deliveries, ("three", "proxied"))
    return lines + [(client, store, each, "toy", brokers) for client, each, brokers in clusters]


def _parts(kills: int) -> list[int]:
    return [min(_KILLS, kills - done) for done in range(0, kills, _KILLS)]


def full_plan(task: Task) -> Plan:
    """Return the plan of a run with everything in it."""
    others = {Fault.BROKER_HARD: max(1, task.kills // 25), Fault.BROKER_CLEAN: 1}
    if task.brokers == "three":
        others = dict.fromkeys(REPLICA_FAULTS, max(1, task.kills // 25))
    elif task.brokers == "proxied":
        others = dict.fromkeys(NETWORK_FAULTS, max(1, task.kills // 25))
    # New kinds come last, so that a seed keeps the schedule of the others.
    others |= {Fault.STOP: max(1, task.kills // 12), Fault.STOP_ALL: max(1, task.kills // 25)}
    others[Fault.CLOCK] = max(2, task.kills // 12)
    if task.upgrade_from:
        others[Fault.SWAP] = max(8, task.kills)
    return Plan(task.seed, task.kills, task.events, others=others)


def run_one(task: Task, *, quiet: bool, limit_s: float = _LIMIT_S) -> Result:
    """Do one run on its own broker, within a time, print the verdict, and return what came of it."""
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="rillcast-chaos-"))
    try:
        with within(limit_s, folder):
            report = _report_of(task, folder)
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        raise
    except Exception as error:  # noqa: BLE001  what is no finding is a failure of the harness, and ends this run only
        outcome: Outcome = "finding" if isinstance(error, Finding) else "harness failed"
        print(f"{task}: {outcome.upper()} after {time.monotonic() - started:.0f} s", flush=True)
        traceback.print_exc(file=sys.stdout)
        print(f"    the logs of the members, and the broker's folder, are in {folder}", flush=True)
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        seconds = time.monotonic() - started
        return Result(task=task, outcome=outcome, seconds=seconds, said=said, logs=str(folder))
    print(report, flush=True)
    verdict = report.verdict
    if not quiet or not verdict.clean:
        print(report.details(), flush=True)
    if verdict.clean:
        shutil.rmtree(folder)
    else:
        print(f"    the logs of the members, and the broker's folder, are in {folder}", flush=True)
    return Result(
        task=task,
        outcome="clean" if verdict.clean else "finding",
        seconds=report.seconds,
        kills=report.kills,
        events=verdict.events,
        lost=verdict.lost,
        doubled=verdict.doubled,
        wrong=verdict.wrong,
        longest_stall_s=report.longest_stall_s,
        said=next(iter(verdict.cases), ""),
        logs="" if verdict.clean else str(folder),
    )


def _report_of(task: Task, folder: Path) -> Report:
    load, model = LOADS[task.load](task.events, task.seed, folder)
    with BROKERS[task.brokers]() as cluster:
        combination = Combination(task.client, task.store, task.delivery, task.brokers, task.upgrade_from)
        older = extract(task.upgrade_from, folder / "older") if task.upgrade_from else None
        servers = cluster.broker or cluster.replicas
        assert servers is not None, "both kinds are started here"

        def keep() -> None:
            servers.close()  # running ones delete files while they are copied
            shutil.copytree(servers.folder, folder / "broker")

        try:
            report = Run(cluster, combination, full_plan(task), load, model, folder, older).run()
            if not report.verdict.clean:
                keep()
            return report
        except Exception:  # of any kind: `run_one` says what it was, and nothing is dropped here
            keep()
            raise
        finally:
            if torn := servers.torn_transactions:
                print(f"    the brokers themselves took {torn} transactions for complete without markers", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the matrix and return the exit code."""
    args = parser().parse_args(argv)
    logging.basicConfig(
        level=logging.WARNING if args.quiet else logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("kafka").setLevel(logging.ERROR)  # the harness's own client tells of each broker that it kills
    file = None if args.results is None else ResultsFile(args.results)
    try:
        # What failed for the harness's own reasons is run again.
        results = [] if file is None else [result for result in file.read() if result.outcome != "harness failed"]
    except ValueError as error:
        parser().error(str(error))
    seed = args.seed
    if seed is None:
        seed = min((result.task.seed for result in results), default=random.randrange(10**6))  # noqa: S311
    print(f"seed {seed}", flush=True)
    known = {result.task for result in results}
    commit = running_commit()
    try:
        for task in tasks(args, seed):
            if task in known:
                continue
            results.append(structs.replace(run_one(task, quiet=args.quiet, limit_s=args.limit_s), commit=commit))
            if file is not None:
                file.append(results[-1])
            if results[-1].outcome != "clean" and not args.all:
                break
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        return _INTERRUPTED
    finally:
        print(table(results), flush=True)
    return exit_code(results)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it leaves no process behind
    try:
        code = main()
    except Exception:  # noqa: BLE001  Python's own exit code would be that of a finding
        traceback.print_exc()
        code = HARNESS_FAILED
    sys.exit(code)
