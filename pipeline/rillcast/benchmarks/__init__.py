"""Benchmarks of `rillcast bench`: the figures that users size their deployment with.

Rule: ratios are taken within one run, with the cases in turns, and the machine is part of every result. A benchmark is
a module with `add_arguments(parser)`, `measure(args)` (with the settings as well, if it needs a broker) and
`show(figures)`.
Does not know: the command line, which lists the benchmarks and adds the arguments that they share.
"""
