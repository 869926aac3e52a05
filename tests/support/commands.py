"""The commands of `rillcast`, as its parser has them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator


def subparsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:  # argparse has no other way
        if isinstance(action, argparse._SubParsersAction):
            yield from (action.choices[listed.dest] for listed in action._choices_actions)


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the commands that have none below them, with their arguments."""
    parser.format_help()  # adds the arguments
    below = list(subparsers(parser))
    for one in below:
        yield from leaves(one)
    if not below:
        yield parser
