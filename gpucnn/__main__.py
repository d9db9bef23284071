"""`python -m gpucnn`: the same as the command `gpucnn`."""

from __future__ import annotations

import sys

from gpucnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
