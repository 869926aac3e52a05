"""The page of `rillcast bench gpu`: what was found, and what to change.

Owns: the words, and the thresholds from which a setting follows. Does not know: how anything was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from rillcast.figures import to_json

Found: TypeAlias = Mapping[str, Any]
WORTH: Final = 1.05
"""A way is worth its setting from this ratio of rates on; less is noise."""
ENOUGH: Final = 0.95
"""The smallest batch with this share of the best rate is large enough."""
COMPARED: Final = (
    ("graphs", "plain", 'CUDA graphs pay: keep `cuda_graphs = "auto"`', "CUDA graphs: set `cuda_graphs = false`"),
    ("graphs", "graphs_pageable", "Page-locked memory pays", "Page-locked memory does not pay"),
    ("graphs_tf32", "graphs", "TF32 is faster: weigh it against its parity", "TF32 is not faster: keep `tf32 = false`"),
)
"""Two ways, and what to say where the first is worth having, and where it is not."""
_RATES: Final = "steps per second batch "


def of(figures: Mapping[str, Any]) -> str:
    """Return the page as Markdown, with the figures as JSON at its end."""
    found: Found = figures["found"]
    lines = [
        f"# {figures['model']} on a GPU",
        "",
        *(["**A short run: no figure here counts.**", ""] if figures["short"] else []),
        "## What to change",
        "",
        *(f"- {line}" for line in advice(figures)),
        "",
        "## What was found",
        "",
        *(f"- {name}: {_words(name, each, comparable=figures['comparable'])}" for name, each in found.items()),
        "",
        "## All figures",
        "",
        "```json",
        to_json(figures),
        "```",
    ]
    return "\n".join(lines)


def advice(figures: Mapping[str, Any]) -> list[str]:
    """Return what follows for the settings."""
    found: Found = figures["found"]
    probe = found.get("probe", {})
    if not probe.get("loads"):
        return [f"CUDA does not work here: {probe.get('reason') or probe.get('error') or 'no probe'}."]
    if figures["comparable"]:
        lines = [*_of_numbers(found), *_of_rates(found), *_of_service(found)]
    else:
        lines = [f"Numbers were **not compared**: {probe['reason']}. Do not serve forecasts from this device."]
    if not probe.get("page_locked"):
        lines.append("No memory could be page-locked, so copies are staged; look at the container's limits.")
    lines.extend(f"`{name}` has no result: {each['error']}" for name, each in found.items() if "error" in each)
    return lines


def _of_numbers(found: Found) -> Iterator[str]:
    for name in ("parity plain", "odd events plain", "runs against steps plain"):
        if _agrees(found, name) is False:
            yield f'`{name}` differs: set `device = "cpu"`, and report the figures below.'
    for name in ("parity graphs", "odd events graphs", "runs against steps graphs"):
        if _agrees(found, name) is False and _agrees(found, name.replace("graphs", "plain")):
            yield f"`{name}` differs only with graphs: set `cuda_graphs = false`, and report the figures below."
    if _agrees(found, "parity plain tf32") is False:
        yield "TF32 moves forecasts: keep `tf32 = false`."


def _agrees(found: Found, name: str) -> bool | None:
    agrees = found.get(name, {}).get("agrees")
    return None if agrees is None else bool(agrees)


def _of_rates(found: Found) -> Iterator[str]:
    rates = {int(name.removeprefix(_RATES)): each for name, each in found.items() if name.startswith(_RATES)}
    by_way = {
        way: {batch: each[way] for batch, each in rates.items() if isinstance(each.get(way), float)}
        for way in ("cpu", "plain", "graphs", "graphs_pageable", "graphs_tf32")
    }
    for better, worse, gain, loss in COMPARED:
        both = sorted(set(by_way[better]) & set(by_way[worse]))
        if both:
            ratios = {batch: by_way[better][batch] / by_way[worse][batch] for batch in both}
            text = ", ".join(f"{ratio:.2f} at {batch}" for batch, ratio in ratios.items())
            yield f"{gain if max(ratios.values()) >= WORTH else loss} (ratio by batch: {text})."
    for name, each in found.items():
        if name.startswith("catch-up of ") and "runs" in each:
            yield f"{name}: runs have {each['runs'] / each['waves']:.2f} of the rate of waves."
    best = by_way["graphs"] or by_way["plain"]
    if best:
        enough = min(batch for batch, rate in best.items() if rate >= ENOUGH * max(best.values()))
        yield f"Set `worker.batch_rows = {enough}`: larger calls gain less than {1 - ENOUGH:.0%}."
    faster = [batch for batch in sorted(set(best) & set(by_way["cpu"])) if best[batch] > WORTH * by_way["cpu"][batch]]
    if faster:
        yield f"The step is faster than on one core of the CPU from batches of {faster[0]} on."
    elif best and by_way["cpu"]:
        yield 'The step is nowhere faster than on one core of the CPU: set `device = "cpu"`.'


def _of_service(found: Found) -> Iterator[str]:
    cpu, cuda, more = (
        found.get(f"service {name}", {}).get("events_per_second") for name in ("cpu", "cuda", "cuda, 2 members")
    )
    if cpu and cuda:
        verdict = "pays" if cuda >= WORTH * cpu else 'does not pay: set `device = "cpu"`'
        yield f"One member on the GPU has {cuda / cpu:.2f} of the rate on the CPU: it {verdict}."
    if cuda and more:
        verdict = "let members share it (MPS or time slicing)" if more >= WORTH * cuda else "one member for each GPU"
        yield f"Two members on the GPU have {more / cuda:.2f} of the rate of one: {verdict}."


def _words(name: str, each: Mapping[str, Any], *, comparable: bool) -> str:
    if "error" in each:
        return f"**failed**: {each['error']}"
    if "skipped" in each:
        return f"skipped: {each['skipped']}"
    if "agrees" in each and not comparable:
        return "ran to its end; **not comparable**, because the GPU of the probe computes wrong numbers"
    if "agrees" in each:
        verdict = "agrees" if each["agrees"] else "**differs**"
        beyond = f"{each['share_beyond_0.0001']:.2g} of {each['values']:,} values beyond 1e-4"
        others = ", ".join(f"{each['other_' + what]} other {what}" for what in ("nan", "status", "outcome"))
        return f"{verdict}; {beyond}, the largest {each['largest']:.2g}; {others}"
    if name.startswith(_RATES):
        return ", ".join(f"{way} {_rate(rate)}" for way, rate in each.items())
    return ", ".join(
        f"{key} {value:,.1f}" if isinstance(value, float) else f"{key} {value}" for key, value in each.items()
    )


def _rate(rate: float | str) -> str:
    return f"{rate:,.0f}" if isinstance(rate, float) else f"**failed** ({rate})"
