"""``python -m kernels.native`` builds the compiled kernels.

Exits 0 when the library is there; 1, and says why, when it cannot be built: serving then takes the torch forms.
"""

from __future__ import annotations

import sys

from kernels.native.build import build


def main() -> int:
    try:
        build()
    except RuntimeError as error:
        sys.stderr.write(f"The compiled CPU kernels were not built: {error}. Serving on a CPU will be slower.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
