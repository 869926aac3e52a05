"""`python -m tests.fuzz.run`: the long form of the fuzz tests; `make fuzz`.

Each target runs in its own process, which reports its current input, so that a crash of native code is found as well as
an exception. Ends with 1 if anything crashed, and prints how to repeat it. `--atheris` lets Google's coverage-guided
fuzzer choose the inputs (`make fuzz-guided` installs it).
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from types import FunctionType, ModuleType

from tests.fuzz.mutation import mutant
from tests.fuzz.results import Ran, append, read, table
from tests.fuzz.targets import targets
from tests.support.checkout import running_commit

_STARTS = multiprocessing.get_context("spawn")
POLL = 100
"""Records of a poll, where a target takes many."""


def _work(name: str, seed: int, inputs: int, at: Synchronized[int]) -> None:
    logging.disable(logging.ERROR)  # hostile inputs are many
    target = targets()[name]
    for first in range(0, inputs, POLL if target.poll else 1):
        at.value = first
        try:
            if target.poll is None:
                target.run(mutant(target.seeds, seed, first))
            else:
                target.poll([mutant(target.seeds, seed, each) for each in range(first, min(first + POLL, inputs))])
        except Exception:  # noqa: BLE001  any exception is a finding
            traceback.print_exc()
            sys.exit(1)
    at.value = inputs


def fuzz(name: str, seed: int, inputs: int) -> int | None:
    """Run one target over `inputs` mutants; return the number of the one that crashed it, or that began its poll."""
    at: Synchronized[int] = _STARTS.Value("q", 0)
    process = _STARTS.Process(target=_work, args=(name, seed, inputs, at))
    process.start()
    process.join()
    return None if process.exitcode == 0 and at.value == inputs else int(at.value)


def main() -> int:
    """Run the targets, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="file of results; runs that it has are not repeated")
    parser.add_argument("--target", choices=list(targets()), help="all inputs to this one")
    parser.add_argument(
        "--only",
        type=int,
        metavar="NUMBER",
        help="run one input of --target, and print it, and the poll that begins with it",
    )
    parser.add_argument(
        "--atheris", action="store_true", help="coverage-guided, each target until its inputs or a crash"
    )
    args = parser.parse_args()
    chosen = {args.target: 1.0} if args.target else {name: target.share for name, target in targets().items()}
    if args.atheris:
        codes = {name: _coverage_guided(name, round(args.inputs * share)) for name, share in chosen.items()}
        print("\n".join(f"{name:<14} {'CRASHED' if code else 'no crash'}" for name, code in codes.items()))
        return 1 if any(codes.values()) else 0
    if args.only is not None:
        target = targets()[args.target or "json"]
        data = mutant(target.seeds, args.seed, args.only)
        print(data)
        target.run(data)
        if target.poll is not None:
            target.poll([mutant(target.seeds, args.seed, args.only + each) for each in range(POLL)])
        return 0
    found = read(args.results)
    for name, share in chosen.items():
        inputs = round(args.inputs * share)
        if any((each.target, each.seed, each.asked) == (name, args.seed, inputs) for each in found):
            continue
        started = time.perf_counter()
        number = fuzz(name, args.seed, inputs)
        ran = Ran(name, args.seed, inputs, inputs if number is None else number, number is not None, running_commit())
        found.append(ran)
        if args.results is not None:
            append(args.results, ran)
        print(f"{name:<14} {ran.inputs:>9,} inputs in {time.perf_counter() - started:7.1f} s", flush=True)
        if ran.crashed:
            print(f"CRASHED: {ran.repeat()}", flush=True)
    print(table(found))
    return 1 if any(ran.crashed for ran in found) else 0


def _coverage_guided(name: str, inputs: int) -> int:
    """Let atheris choose the inputs of one target, from the target's seeds on; return the fuzzer's exit code."""
    with tempfile.TemporaryDirectory(prefix="rillcast-fuzz-") as folder:
        for number, seed in enumerate(targets()[name].seeds):
            (Path(folder) / f"seed-{number}").write_bytes(seed)
        process = _STARTS.Process(target=_fuzz_by_coverage, args=(name, inputs, folder))  # it ends with its process
        process.start()
        process.join()
    return int(process.exitcode or 0)


def _fuzz_by_coverage(name: str, inputs: int, corpus: str) -> None:
    import atheris  # not a dependency: there is no wheel for every Python

    target = targets()[name]
    for module in [module for path, module in sys.modules.items() if path.startswith("rillcast.")]:
        for function in functions(module):
            atheris.instrument_func(function)
    longest = max(4_096, 2 * max(map(len, target.seeds)))
    atheris.Setup([sys.argv[0], f"-runs={inputs}", f"-max_len={longest}", corpus], target.run)
    atheris.Fuzz()


def functions(module: ModuleType) -> Iterator[FunctionType]:
    """Yield the functions of a module and the methods of its classes."""
    for member in list(vars(module).values()):
        members = list(vars(member).values()) if isinstance(member, type) else [member]
        for each in members:
            function = each.__func__ if isinstance(each, classmethod | staticmethod) else each
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                yield function


if __name__ == "__main__":
    sys.exit(main())
