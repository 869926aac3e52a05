"""One module per command: `HELP`, `configure(parser)` and `run(args) -> exit code`.

A module imports what is heavy, and anything of `training`, inside `run` only, so that `rillcast --help` is quick and
serving works without torch.
"""
