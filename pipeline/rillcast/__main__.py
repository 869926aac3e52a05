"""`python -m rillcast`: the command line."""

import sys

from rillcast.cli import main

if __name__ == "__main__":
    sys.exit(main())
