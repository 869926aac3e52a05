"""`python -m rillcast`: the command line."""

import sys

from rillcast.cli import console_script

if __name__ == "__main__":
    sys.exit(console_script())
