"""Flags of options: the ones that were given, for the command that has them."""

from __future__ import annotations

from rillcast import cli
from rillcast.cli import flags
from rillcast_training.fit.options import TrainOptions, TuneOptions


def test_a_search_gives_its_sizes_to_the_search_and_not_to_the_base_of_its_trials() -> None:
    command = "tune data.csv --freq 1h --horizon 2 --study s --budget 1s --hidden 2,4 --layers 1 --epochs 3"
    args = cli.parser().parse_args(command.split())
    base, search = flags.given(args, TrainOptions, "tune"), flags.given(args, TuneOptions, "tune")
    assert (search["hidden"], search["layers"]) == ((2, 4), (1,))
    assert not base.keys() & search.keys()
    assert (base["horizon"], base["epochs"]) == (2, 3)


def test_a_training_gets_one_size() -> None:
    command = "train data.csv --freq 1h --horizon 2 --out m.onnx --hidden 8"
    args = cli.parser().parse_args(command.split())
    assert flags.given(args, TrainOptions, "train")["hidden"] == 8
