"""`python -m attncap` is the command line of `attncap.cli`."""

import sys

from attncap.cli import main

if __name__ == "__main__":
    sys.exit(main())
