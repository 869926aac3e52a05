"""Reads a Dockerfile, for tests on machines without Docker: the instructions of one image, in order.

Owns: stages, `FROM` chains, line continuations. Does not know: shell, build arguments, layers. It covers what our
Dockerfile uses; anything else is an error, so that a test never skips an instruction unseen.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

_KNOWN: Final = {
    "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN", "STOPSIGNAL", "USER",
    "WORKDIR",
}  # fmt: skip


class Instruction(NamedTuple):
    """One instruction, its lines joined."""

    name: str
    text: str


class Dockerfile:
    """The stages of a Dockerfile by name."""

    def __init__(self, path: Path) -> None:
        joined = re.sub(r"\\\n", " ", "\n".join(x for x in path.read_text().splitlines() if not x.startswith("#")))
        self._stages: dict[str, list[Instruction]] = {"": []}  # what stands before the first FROM
        self._parent: dict[str, str] = {}
        current = ""
        for line in filter(None, map(str.strip, joined.splitlines())):
            name, text = line.split(None, 1)
            assert name in _KNOWN, f"{path}: {name} is not known here: {line}"
            if name == "FROM":
                parent, current = re.fullmatch(r"(\S+) AS (\S+)", text).groups()  # type: ignore[union-attr]
                self._parent[current] = parent
                self._stages[current] = []
            else:
                self._stages[current].append(Instruction(name, " ".join(text.split())))

    def stage(self, name: str) -> list[Instruction]:
        """Return the instructions of a stage, those of the stages that it builds on first."""
        parent = self._parent[name]
        return (self.stage(parent) if parent in self._stages else []) + self._stages[name]

    def base(self, name: str) -> str:
        """Return the image that a stage starts from, in the end."""
        parent = self._parent[name]
        return self.base(parent) if parent in self._stages else parent

    def last(self, stage: str, instruction: str) -> str:
        """Return the text of the last such instruction of a stage, which is the one that applies."""
        return [text for name, text in self.stage(stage) if name == instruction][-1]

    def environment(self, stage: str) -> dict[str, str]:
        """Return the variables that a stage sets."""
        found = (re.findall(r"(\w+)=(\S+)", text) for name, text in self.stage(stage) if name == "ENV")
        return {key: value for pairs in found for key, value in pairs}

    def arguments(self, stage: str) -> dict[str, str]:
        """Return the build arguments and their defaults, those before the first stage included."""
        texts = [text for name, text in [*self._stages[""], *self.stage(stage)] if name == "ARG"]
        return {key: value for key, _, value in (text.partition("=") for text in texts)}
