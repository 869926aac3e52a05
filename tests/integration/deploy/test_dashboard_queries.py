"""What a panel asks about a service of many members, by Prometheus' own tool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.queries import spread
from tests.integration.deploy.test_alerts import promtool

_MEMBERS = 12


@pytest.mark.parametrize(("lowest", "named", "far"), [(False, (9, 10, 11), 0), (True, (0, 1, 2), 11)])
def test_of_twelve_members_three_have_names(lowest: bool, named: tuple[int, ...], far: int, tmp_path: Path) -> None:
    """Member n uses n for two minutes, and 6 as all others before and afterwards: what has stood out keeps its name."""
    used = [{"series": f'used{{instance="m{n:02}"}}', "values": f"6x1 {n}x1 6x9"} for n in range(_MEMBERS)]

    def expected(values: Sequence[float], median: float, other: float) -> list[list[dict[str, Any]]]:
        chosen = [{"labels": f'{{instance="m{n:02}"}}', "value": value} for n, value in zip(named, values, strict=True)]
        return [chosen, [{"labels": "{}", "value": median}], [{"labels": "{}", "value": other}]]

    middle = (_MEMBERS - 1) / 2
    moments = {"3m": expected(named, middle, far), "8m": expected((6, 6, 6), 6, 6)}
    queries = spread("sum by (instance) (used)", lowest=lowest)
    asked = [
        {"expr": query.expr.replace("$__range", moment), "eval_time": moment, "exp_samples": samples}
        for moment, of_each in moments.items()
        for query, samples in zip(queries, of_each, strict=True)
    ]
    test = {"interval": "1m", "input_series": used, "promql_expr_test": asked}
    (tmp_path / "spread_test.yml").write_text(yaml.safe_dump({"tests": [test]}))
    promtool("test", "rules", str(tmp_path / "spread_test.yml"))
