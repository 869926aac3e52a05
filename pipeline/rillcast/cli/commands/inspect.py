"""`rillcast inspect`: check and describe a bundle."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any, Final

from rillcast.cli import flags
from rillcast.figures import to_json

EXAMPLES: Final = """\
examples:
  rillcast inspect model.onnx
  rillcast inspect model.onnx --json | jq .metadata.backtest

Exit codes: 0 the bundle meets the contract, 3 it does not (the message names the clause).
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", type=flags.path, help="bundle (.onnx)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Load the bundle, which checks it, run its graphs on a few events, and print its metadata and size."""
    import onnx

    from rillcast.bundle.bundle import Bundle
    from rillcast.engine import dry_run

    bundle = Bundle.load(args.model)
    dry_run.check(bundle)
    metadata = bundle.metadata
    graph = onnx.load_model_from_string(bundle.model).graph
    description: dict[str, Any] = {
        "file": str(args.model),
        "file_bytes": len(bundle.model),
        "state_bytes_per_stream": metadata.row_bytes,
        "parameters": sum(_size(tensor) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT),
        "nodes": dict(Counter(node.op_type for node in graph.node).most_common()),
        "metadata": metadata.model_dump(mode="json"),
    }
    if args.json:
        print(to_json(description))
        return 0
    print(f"{metadata.name}@{metadata.model_id}: {metadata.cell}, {metadata.freq}, {metadata.horizon} horizons")
    print(f"  quantiles    {', '.join(f'{q:g}' for q in metadata.quantiles)}")
    print(f"  parameters   {description['parameters']:,}")
    print(f"  file         {len(bundle.model):,} bytes, {len(graph.node)} nodes")
    print(f"  state        {metadata.row_bytes:,} bytes per stream, warm after {metadata.context} periods")
    for spec in metadata.states:
        print(f"    {spec.name:<10} {spec.dtype} {list(spec.row_shape)}")
    if metadata.covariates:
        print("  covariates")
    for covariate in metadata.covariates:
        number = f"usually {covariate.loc:.6g} +- {covariate.scale:.6g}"
        text = number if covariate.kind != "category" else f"{len(covariate.categories)} known"
        print(f"    {covariate.name:<24} {covariate.kind:<9} {text}")
    for title, values in (
        ("training", metadata.training), ("backtest", metadata.backtest), ("versions", metadata.versions)
    ):  # fmt: skip
        if values:
            print(f"  {title}")
            for name, value in values.items():
                print(f"    {name:<24} {value:.6g}" if isinstance(value, float) else f"    {name:<24} {value}")
    return 0


def _size(tensor: Any) -> int:
    size = 1
    for dim in tensor.dims:
        size *= dim
    return size
