"""Imports between packages run downwards only; see `docs/architecture.md`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SERVING, TRAINING = ROOT / "pipeline" / "rillcast", ROOT / "training" / "rillcast_training"

# A package may import packages that stand after it, and itself.
SERVING_ORDER = [
    "cli", "discovery", "benchmarks", "service", "rollout", "durability", "serving", "publishing", "observability",
    "stores", "engine", "codecs", "transports", "bundle", "settings", "outputs", "figures", "reading", "text", "rate",
    "threads", "events", "arrays", "errors",
]  # fmt: skip
TRAINING_ORDER = ["research", "explain", "fit", "evaluate", "export", "data", "model"]
# Of serving, training knows the bundle and the engine that a back-test runs; never transports, stores or the service.
TRAINING_MAY_IMPORT = {"bundle", "engine", "outputs", "figures", "reading", "text", "events", "arrays", "errors"}
HEAVY = {"torch", "pandas", "polars", "matplotlib", "rillcast_training"}


def modules(root: Path) -> dict[str, Path]:
    """Every module below a package, by its dotted name."""
    paths = {p: p.relative_to(root.parent).with_suffix("").parts for p in sorted(root.rglob("*.py"))}
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in paths.items()}


KNOWN = modules(SERVING) | modules(TRAINING)


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {full if (full := f"{node.module}.{a.name}") in KNOWN else node.module for a in node.names}
    return found


def package(module: str) -> str:
    """The part after the import name: `rillcast.engine.slab` -> `engine`."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize(("root", "order"), [(SERVING, SERVING_ORDER), (TRAINING, TRAINING_ORDER)])
def test_imports_between_packages_run_downwards(root: Path, order: list[str]) -> None:
    wrong = []
    for module, path in modules(root).items():
        own = package(module)
        if own in ("", "__main__"):
            continue  # the public API and `python -m` may use all of it
        assert own in order, f"{module} stands in no package of the order"
        for imported in imports(path):
            if imported.split(".")[0] == root.name and package(imported):
                other = package(imported)
                if other != own and order.index(other) < order.index(own):
                    wrong.append(f"{module} imports {imported}")
    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize("root", [SERVING, TRAINING], ids=lambda root: root.name)
def test_no_modules_import_each_other_in_a_circle(root: Path) -> None:
    graph = {
        module: {i for i in imports(path) if i in KNOWN and KNOWN[i].name != "__init__.py"}
        for module, path in modules(root).items()
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for imported in sorted(graph.get(module, ())):
                visit(imported, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_serving_never_imports_training_or_its_libraries() -> None:
    banned = {"torch", "pandas", "matplotlib", "rillcast_training"}
    for module, path in modules(SERVING).items():
        # A command may import `rillcast_training` inside its run(), never when it is loaded.
        found = imports(path, top_level_only=module.startswith("rillcast.cli."))
        assert not {imported.split(".")[0] for imported in found} & banned, module


def test_installed_modules_import_nothing_that_only_a_checkout_has() -> None:
    for module, path in KNOWN.items():
        if not module.startswith("rillcast_training.research"):
            found = {i for i in imports(path) if i.startswith(("tests", "deploy", "rillcast_training.research"))}
            assert not found, f"{module} imports {sorted(found)}"


def test_the_engine_knows_no_kafka_metrics_or_wall_clock() -> None:
    for name in ("engine", "bundle"):
        for path in (SERVING / name).rglob("*.py"):
            found = {imported.split(".")[0] for imported in imports(path)}
            assert not found & {"kafka", "confluent_kafka", "prometheus_client", "pydantic_settings"}, path
            assert "time.time(" not in path.read_text(), path


def test_training_knows_little_of_serving() -> None:
    for module, path in modules(TRAINING).items():
        known = {package(i) for i in imports(path) if i.split(".")[0] == "rillcast"}
        if module == "rillcast_training":
            assert known == {""}, "the package alone, which sets the switches of ONNX Runtime"
            continue
        assert known <= TRAINING_MAY_IMPORT, f"{module} imports {sorted(known - TRAINING_MAY_IMPORT)}"


def test_the_service_loads_without_training_libraries() -> None:
    code = (
        "import sys; import rillcast.cli, rillcast.service.build; rillcast.cli.parser();"
        f"print(sorted({{m.split('.')[0] for m in sys.modules}} & {HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
