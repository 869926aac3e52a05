"""The imports run one way; see `docs/architecture.md`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# A module may import only modules of a layer further down, or of its own where that is said.
LAYERS = [
    ["pipeline.cli"],
    ["pipeline.commands"],
    ["pipeline.benchmarks"],
    ["pipeline.service", "pipeline.crew", "pipeline.warming"],
    ["pipeline.worker", "pipeline.candidates"],
    ["pipeline.rollout", "pipeline.lane_factory"],
    ["pipeline.assignment", "pipeline.follower", "pipeline.comparison"],
    ["pipeline.checkpoint", "pipeline.recovery"],
    ["pipeline.lanes", "pipeline.delivery"],
    ["pipeline.publisher", "pipeline.deadletters", "pipeline.server"],
    [
        "pipeline.metrics",
        "pipeline.logs",
        "pipeline.tracing",
        "pipeline.api",
        "pipeline.anomalies",
        "pipeline.changes",
        "pipeline.spans",
        "pipeline.revisions",
    ],
    ["pipeline.stores", "pipeline.stepper"],
    [
        "pipeline.transports",
        "pipeline.engine",
        "pipeline.board",
        "pipeline.latest",
        "pipeline.health",
        "pipeline.codecs",
    ],
    ["pipeline.executor", "pipeline.rewind"],
    ["pipeline.settings", "pipeline.residents", "pipeline.batcher", "pipeline.guard"],
    ["pipeline.history"],
    ["pipeline.slab", "pipeline.slots", "pipeline.stores.base"],
    ["pipeline.device", "pipeline.cuda_graphs"],
    ["pipeline.models"],
    ["pipeline.bundle"],
    ["pipeline.contract", "pipeline.succession"],
    ["pipeline.metadata"],
    ["pipeline.sequence"],
    ["pipeline.shipped", "pipeline.onnx_safety"],
    ["pipeline.inputs", "pipeline.counted"],
    [
        "pipeline.frequency",
        "pipeline.covariates",
        "pipeline.arrays",
        "pipeline.errors",
        "pipeline.stages",
        "pipeline.collector",
    ],
]
SAME_LAYER_ALLOWED = {
    "pipeline.codecs",
    "pipeline.commands",
    "pipeline.models",
    "pipeline.benchmarks",
    "pipeline.transports",
    "pipeline.stores",
}
ENGINE_SIDE = (
    "engine",
    "inputs",
    "covariates",
    "metadata",
    "contract",
    "executor",
    "residents",
    "guard",
    "rewind",
    "history",
    "slab",
    "slots",
    "batcher",
    "bundle",
    "sequence",
    "device",
)
# Of pipeline, training knows the bundle contract; a backtest and the demo also run what production runs.
TRAINING_MAY_IMPORT = {
    "pipeline.bundle", "pipeline.errors", "pipeline.frequency", "pipeline.arrays", "pipeline.engine", "pipeline.device",
    "pipeline.shipped", "pipeline.contract", "pipeline.covariates",
}  # fmt: skip


def layer_of(module: str) -> tuple[int, str]:
    found = [
        (len(name), number, name)
        for number, layer in enumerate(LAYERS)
        for name in layer
        if module == name or module.startswith(name + ".")
    ]
    assert found, f"{module} stands in no layer; add it to LAYERS"
    _, number, name = max(found)
    return number, name


def modules(package: str) -> list[tuple[str, Path]]:
    paths = sorted((ROOT / package).rglob("*.py"))
    return [(".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), p) for p in paths]


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            known = {name for name, _ in modules(node.module.split(".")[0])}
            found |= {full if (full := f"{node.module}.{alias.name}") in known else node.module for alias in node.names}
    return found


def test_imports_of_the_pipeline_run_one_way() -> None:
    for module, path in modules("pipeline"):
        if module == "pipeline":
            continue
        number, name = layer_of(module)
        for imported in imports(path):
            if imported.startswith("pipeline."):
                other, other_name = layer_of(imported)
                same = name == other_name and name in SAME_LAYER_ALLOWED
                assert other > number or same, f"{module} imports {imported}, which is not further down"


def test_serving_never_imports_training_or_its_libraries() -> None:
    banned = ("torch", "pandas", "training", "matplotlib")
    for module, path in modules("pipeline"):
        # A command may import `training` inside its run(), never when it is loaded.
        only_top = module.startswith("pipeline.commands.")
        for imported in imports(path, top_level_only=only_top):
            assert imported.split(".")[0] not in banned, f"{module} imports {imported}"


def test_engine_side_knows_no_kafka_metrics_or_wall_clock() -> None:
    for name in ENGINE_SIDE:
        path = ROOT / "pipeline" / f"{name}.py"
        found = {imported.split(".")[0] for imported in imports(path)}
        assert not found & {"kafka", "confluent_kafka", "prometheus_client", "pydantic_settings"}, name
        assert "time.time(" not in path.read_text(), name


def test_training_knows_little_of_the_pipeline() -> None:
    for module, path in modules("training"):
        known = {i for i in imports(path) if i.split(".")[0] == "pipeline"}
        assert known <= TRAINING_MAY_IMPORT, f"{module} imports {sorted(known - TRAINING_MAY_IMPORT)}"


def test_the_service_loads_without_training_libraries() -> None:
    code = (
        "import sys; import pipeline.cli, pipeline.service; pipeline.cli.parser();"
        "banned = {'torch', 'pandas', 'polars', 'training', 'matplotlib'};"
        "print(sorted({m.split('.')[0] for m in sys.modules} & banned))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
