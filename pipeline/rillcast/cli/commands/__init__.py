"""One module per command, with `EXAMPLES`, `configure(parser)` and `run(args) -> exit code`.

Rule: a module imports heavy libraries, and anything of `rillcast_training`, in its functions only, so that the other
commands are quick and serving works without PyTorch.
"""
