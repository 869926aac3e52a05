"""What training may use of the machine: one set of flags for every command that trains."""

from __future__ import annotations

import argparse


def add(parser: argparse._ActionsContainer) -> None:
    """Add threads, device and precision; `rillcast_training.fit.options.TrainOptions` has what they mean."""
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to train (default: auto: cuda if there)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of the products in cells and head (default: auto: bfloat16 on a GPU that has it, else float32)",
    )
