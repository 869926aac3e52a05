"""Example observations: six weeks of hourly page views of a few web sites, up to the current hour.

Prints JSON Lines in the order of time, for `rillcast replay -`. Needs nothing but Python, so it runs in the serving
image. Days and weeks differ by site; there are hours without a value, a site that is down for half a day, and an
unexpected rush.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time

HOURS = 6 * 7 * 24
SITES = {"blog": 120.0, "docs": 900.0, "forum": 450.0, "login": 1_500.0, "shop": 2_600.0, "status": 40.0}
RUSH = ("shop", HOURS - 40)
AWAY = ("forum", range(HOURS - 200, HOURS - 188))
MISSING = 0.01


def observations(last_hour: int, seed: int = 0) -> list[dict[str, object]]:
    """Return the observations of `HOURS` hours, the newest of which begins `last_hour` hours after the epoch."""
    noise = random.Random(seed)  # noqa: S311  nothing secret is made with it
    found: list[dict[str, object]] = []
    for number in range(HOURS):
        hour = last_hour - HOURS + 1 + number
        for phase, (site, level) in enumerate(SITES.items()):
            of_day = 1 + 0.6 * math.sin(2 * math.pi * (hour % 24 - 8 - phase) / 24)
            of_week = 0.7 if hour // 24 % 7 in (2, 3) else 1.0  # the epoch was a Thursday
            value = level * of_day * of_week * math.exp(noise.gauss(0, 0.08)) * (4 if (site, number) == RUSH else 1)
            lost = noise.random() < MISSING
            if site == AWAY[0] and number in AWAY[1]:
                continue
            found.append({"unique_id": site, "ds": hour * 3_600_000, "y": None if lost else round(value, 1)})
    return found


if __name__ == "__main__":
    for observation in observations(int(time.time()) // 3_600):
        sys.stdout.write(json.dumps(observation) + "\n")
