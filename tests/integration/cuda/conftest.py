"""The stand-in for CUDA, built once."""

from __future__ import annotations

import pytest

from tests.support.ci import cannot_run
from tests.support.cuda_stand_in.build import StandIn, build, has_provider, missing_tools


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    if not has_provider():
        cannot_run("the installed ONNX Runtime has no CUDA provider")
    if reason := missing_tools():
        cannot_run(f"no stand-in for CUDA: {reason}")
    return build(tmp_path_factory.mktemp("cuda"))
