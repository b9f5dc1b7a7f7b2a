"""`python -m kumo_crt.cli`."""

from __future__ import annotations

import sys

from kumo_crt.cli._main import main

if __name__ == "__main__":
    sys.exit(main())
