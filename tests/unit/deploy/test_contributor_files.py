"""The files for contributors and their CI name targets and files that exist."""

from __future__ import annotations

import json
import re
import tomllib

import yaml

from tests.support.paths import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))


def test_help_has_a_line_for_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == TARGETS
    assert set(re.findall(r"@echo 'make ([a-z0-9-]+) ", MAKEFILE)) == TARGETS - {"help"}


def test_both_ways_to_run_the_ci_run_the_checks_and_every_test() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {"make check", "make test"} <= set(runs)
    script = re.findall(r"^make .*$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert {"make check", "make test"} <= set(script)
    assert {line.split()[1] for line in (*runs, *script)} <= TARGETS


def test_every_long_test_runs_at_night_and_keeps_its_outcome() -> None:
    long = set(re.findall(r"^(test-[a-z0-9]+):", MAKEFILE, re.MULTILINE))
    assert len(re.findall(r"RILLCAST_TEST_LONG=\$@ .* \$\(KEPT\) ", MAKEFILE)) == len(long)
    jobs = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text())["jobs"]
    targets = {
        target for job in jobs.values() for target in job.get("strategy", {}).get("matrix", {}).get("target", ())
    }
    steps = [step for job in jobs.values() for step in job["steps"]]
    targets |= {step["run"].removeprefix("make ") for step in steps if step.get("run", "").startswith("make test-")}
    assert targets == long
    kept = [step["with"]["path"] for step in steps if step.get("uses", "").startswith("actions/upload-artifact")]
    assert kept == ["build/${{ matrix.target }}", "build/test-image"]


def test_hooks_and_container_use_what_make_sets_up() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    checks = re.findall(r"\$\(BIN\)/(\w+)", MAKEFILE.split("\ncheck:")[1].split("\n\n")[0])
    assert {hook["entry"].split()[0] for hook in repository["hooks"]} == {f".venv/bin/{check}" for check in checks}
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["postCreateCommand"].removeprefix("make ") in MAKEFILE.replace("$(VENV)", ".venv")
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).is_file()


def test_the_metadata_of_the_distribution_is_complete() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"authors", "keywords", "readme", "license", "urls", "classifiers"} <= project.keys()
    assert {"Documentation", "Source", "Issues", "Changelog"} <= project["urls"].keys()
    assert all(extra for extra in project["optional-dependencies"].values()), "an extra that installs nothing"
