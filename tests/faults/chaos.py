"""`python -m tests.faults.chaos`: the chaos suite on the command line. `docs/chaos.md` is the manual.

For each client, store and delivery: its own broker, a run, and a line

    librdkafka kafka exactly_once seed=7: kills / events / lost / doubled / wrong = 50 / 1,000,000 / 0 / 0 / 0

Exit code 0 if every zero is a zero, else 1; then the logs stay, and their folder is named.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.faults.load import gru_load, toy_load
from tests.faults.plan import Plan
from tests.faults.run import Combination, Run
from tests.support.kafka_broker import running_broker
from tests.support.kafka_cluster import KafkaCluster

CLIENTS: Final = ("librdkafka", "kafka-python")
STORES: Final = ("kafka", "local")
DELIVERIES: Final = ("exactly_once", "at_least_once")
LOADS: Final = {"toy": toy_load, "gru": gru_load}
_KILLS: Final = 50
_EVENTS_PER_KILL: Final = {"toy": 20_000, "gru": 2_000}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    root = argparse.ArgumentParser(prog="chaos", description="Kill, stop and restart everything; lose nothing.")
    root.add_argument("--kills", type=int, default=_KILLS, help=f"kill -9 per run ({_KILLS})")
    root.add_argument("--events", type=int, help="events per run (20,000 per kill; gru: 2,000 per kill)")
    root.add_argument("--seed", type=int, help="of the schedule and the events; drawn and printed if not given")
    root.add_argument("--client", action="append", choices=CLIENTS, help="only this client; may be repeated")
    root.add_argument("--store", action="append", choices=STORES, help="only this store; may be repeated")
    root.add_argument("--delivery", action="append", choices=DELIVERIES, help="only this delivery; may be repeated")
    root.add_argument("--load", action="append", choices=LOADS, help="only this bundle; may be repeated")
    root.add_argument("--quiet", action="store_true", help="one line per run, nothing else unless it fails")
    return root


def full_plan(seed: int, kills: int, events: int) -> Plan:
    """Return the plan of a run with everything in it."""
    return Plan(
        seed,
        kills,
        events,
        members=(1, 3, 5, 2, 1),
        stops=max(1, kills // 12),
        brokers_hard=max(1, kills // 25),
        brokers_clean=1,
    )


def run_one(combination: Combination, load_name: str, plan: Plan, folder: Path, *, quiet: bool) -> bool:
    """Run one combination on its own broker, print the verdict, and return whether it is clean."""
    started = time.monotonic()
    load, model = LOADS[load_name](plan.events, plan.seed, folder)
    with running_broker(own_controller=True) as broker:
        cluster = KafkaCluster(broker.bootstrap_servers, broker)
        try:
            report = Run(cluster, combination, plan, load, model, folder).run()
        except AssertionError:
            print(f"{combination} {load_name} seed={plan.seed}: FAILED after {time.monotonic() - started:.0f} s")
            traceback.print_exc(file=sys.stdout)
            shutil.copytree(broker.folder, folder / "broker")
            return False
        finally:
            cluster.close()
            if torn := broker.torn_transactions:
                print(f"    the broker itself took {torn} transactions for complete without their markers", flush=True)
    print(report, flush=True)
    if not quiet or not report.verdict.clean:
        print(report.details(), flush=True)
    return report.verdict.clean


def main(argv: Sequence[str] | None = None) -> int:
    """Run the matrix and return the exit code."""
    args = parser().parse_args(argv)
    seed = random.randrange(10**6) if args.seed is None else args.seed  # noqa: S311
    logging.basicConfig(
        level=logging.WARNING if args.quiet else logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr
    )
    print(f"seed {seed}", flush=True)
    runs = [
        (Combination(client, store, delivery), "toy")
        for client, store, delivery in itertools.product(
            args.client or CLIENTS, args.store or STORES, args.delivery or DELIVERIES
        )
        if "toy" in (args.load or LOADS)
    ]
    if "gru" in (args.load or LOADS):
        runs += [
            (Combination(client, (args.store or STORES)[0], (args.delivery or DELIVERIES)[0]), "gru")
            for client in args.client or CLIENTS[:1]
        ]
    clean = True
    for combination, load in runs:
        folder = Path(tempfile.mkdtemp(prefix="rillcast-chaos-"))
        plan = full_plan(seed, args.kills, args.events or args.kills * _EVENTS_PER_KILL[load])
        if run_one(combination, load, plan, folder, quiet=args.quiet):
            shutil.rmtree(folder)
        else:
            clean = False
            print(f"    the logs of the members, and the broker's folder if it hung, are in {folder}", flush=True)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
