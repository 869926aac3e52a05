"""`rillcast model`: the registry of bundles.

Owns: the arguments and the printed result. Does not know: how a registry is stored (`rillcast.bundle.registry`).
"""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rillcast import outputs
from rillcast.cli import flags
from rillcast.errors import SettingsError
from rillcast.figures import to_json

if TYPE_CHECKING:
    from rillcast.bundle.registry.model_registry import ModelRegistry
    from rillcast.bundle.registry.records import Promotion

EXAMPLES: Final = """\
examples:
  rillcast model push s3://bucket/models model.onnx
  rillcast model push s3://bucket/models model.onnx --promote
  rillcast model push /registry universal:1h --promote --if-unset
  rillcast model list s3://bucket/models
  rillcast model promote s3://bucket/models 0123456789abcdef --note 'more series'
  rillcast model rollback s3://bucket/models
  rillcast model pull s3://bucket/models live --out model.onnx
  rillcast model push mlflow://mlflow.example:5000/load model.onnx --promote
  rillcast run --model s3://bucket/models@live

A registry is a folder, file:///folder, any file system of fsspec (extra s3; or object-store, and gcsfs or adlfs), or a
registered model of an MLflow server (mlflow://HOST:PORT/NAME; mlflow+https:// with TLS).
A pushed bundle never changes and is named by its model id. An alias (default: live) names one model and can move.
Exit codes: 0 done, 2 wrong address, 3 no such model or alias, or refused, 5 the storage does not answer.
"""
_OTHER_RECORDS: Final = (
    "allow a model of another frequency, horizon, levels, scores or covariates than the alias's model before, which "
    "services that follow the alias refuse"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add(actions, "list", "list models, aliases and their history", _list)
    push = _add(actions, "push", "check a bundle and store it", _push)
    push.add_argument(
        "model", type=flags.path_text, metavar="MODEL", help="bundle (.onnx), or a shipped one: universal:1h"
    )
    push.add_argument(
        "--promote", nargs="?", const="live", metavar="ALIAS", help="then move an alias to it (default: live)"
    )
    push.add_argument("--note", default="", help="note in the history, with --promote")
    push.add_argument(
        "--if-unset", action="store_true", help="with --promote, leave an alias alone that names a model already"
    )
    push.add_argument("--other-records", action="store_true", help=f"with --promote, {_OTHER_RECORDS}")
    promote = _add(actions, "promote", "move an alias to a model", _promote)
    promote.add_argument("model", metavar="MODEL", help="model id, or another alias")
    promote.add_argument("--other-records", action="store_true", help=_OTHER_RECORDS)
    rollback = _add(actions, "rollback", "move an alias back to its previous model", _rollback)
    for moving in (promote, rollback):
        moving.add_argument("--alias", default="live", help="alias to move (default: live)")
        moving.add_argument("--note", default="", help="note in the history")
    pull = _add(actions, "pull", "check a model and write it to a file", _pull)
    pull.add_argument("model", metavar="MODEL", help="alias or model id")
    pull.add_argument("--out", type=flags.path, required=True, help="file to write")


def _add(actions: Any, name: str, text: str, does: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    action.add_argument("registry", type=flags.path_text, metavar="REGISTRY", help="folder or URL")
    action.add_argument("--json", action="store_true", help="print one JSON object")
    action.set_defaults(run_action=does)
    return action


def run(args: argparse.Namespace) -> int:
    """Do the action, and print its result."""
    done: int = args.run_action(args)
    return done


def _registry(args: argparse.Namespace) -> ModelRegistry:
    from rillcast.bundle.registry.model_registry import ModelRegistry

    return ModelRegistry.at(args.registry)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def _list(args: argparse.Namespace) -> int:
    registry = _registry(args)
    models, aliases = registry.models(), registry.aliases()
    if args.json:
        document = {
            "registry": args.registry,
            "models": [one.model_dump(mode="json") for one in models],
            "aliases": {
                name: {"model_id": moves[-1].model_id, "history": [move.model_dump(mode="json") for move in moves]}
                for name, moves in aliases.items()
                if moves
            },
        }
        print(to_json(document))
        return 0
    if not models:
        print(f"{args.registry} has no models; `rillcast model push {args.registry} MODEL.onnx` adds one")
        return 0
    aliases_of: dict[str, list[str]] = {}
    for name, moves in aliases.items():
        aliases_of.setdefault(moves[-1].model_id, []).append(name)
    for one in models:
        print(
            f"{one.model_id}  {one.pushed_at:%Y-%m-%d %H:%M}  {one.size_bytes:>11,} bytes  {one.cell:<6} {one.freq:>5} "
            f"x {one.horizon:<4} {one.name}  {', '.join(aliases_of.get(one.model_id, []))}".rstrip()
        )
    for name, moves in aliases.items():
        print(f"\n{name}")
        for move in moves:
            print(
                f"  {move.number:>4}  {move.at:%Y-%m-%d %H:%M}  {move.action:<8}  {move.model_id}  {move.note}".rstrip()
            )
    return 0


def _push(args: argparse.Namespace) -> int:
    from rillcast.bundle.bundle import Bundle
    from rillcast.engine import dry_run

    registry, alias = _registry(args), args.promote
    if args.if_unset and alias is None:
        raise SettingsError("--if-unset says when an alias moves: it needs --promote")
    bundle = Bundle.load(args.model)
    dry_run.check(bundle)
    manifest, new = registry.push(bundle.model, _now())
    target = None if alias is None else registry.target(alias)
    moves = alias is not None and target != manifest.model_id and (target is None or not args.if_unset)
    if moves:
        registry.promote(manifest.model_id, _now(), alias=alias, note=args.note, other_records=args.other_records)
    if args.json:
        print(to_json({"registry": args.registry, "new": new, "promoted": moves, **manifest.model_dump(mode="json")}))
        return 0
    if new:
        print(f"pushed {manifest.name}@{manifest.model_id}, {manifest.size_bytes:,} bytes")
    else:
        print(f"{manifest.name}@{manifest.model_id} exists already, since {manifest.pushed_at:%Y-%m-%d %H:%M}")
    if moves:
        print(f"{alias} is {manifest.model_id} now; services that follow it change to it")
    elif alias is not None:
        print(f"{alias} is {target} already")
    return 0


def _promote(args: argparse.Namespace) -> int:
    made = _registry(args).promote(
        args.model, _now(), alias=args.alias, note=args.note, other_records=args.other_records
    )
    return _moved(args, made)


def _rollback(args: argparse.Namespace) -> int:
    return _moved(args, _registry(args).rollback(_now(), alias=args.alias, note=args.note))


def _moved(args: argparse.Namespace, made: Promotion) -> int:
    if args.json:
        print(to_json({"registry": args.registry, "alias": args.alias, **made.model_dump(mode="json")}))
    else:
        print(f"{args.alias} is {made.model_id} now; services that follow it change to it")
    return 0


def _pull(args: argparse.Namespace) -> int:
    out: Path = args.out
    outputs.check({}, {"--out": out})
    pulled = _registry(args).pull(args.model)
    outputs.replace(out, pulled.data)
    manifest = pulled.manifest
    if args.json:
        print(to_json({"registry": args.registry, "file": str(out), **manifest.model_dump(mode="json")}))
    else:
        print(f"{out}: {manifest.name}@{manifest.model_id}, {manifest.size_bytes:,} bytes")
    return 0
