"""`python -m attncap` is the command line of `attncap.cli.main`."""

import sys

from attncap.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
