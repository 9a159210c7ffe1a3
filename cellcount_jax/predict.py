"""`cellcount count` as a module: python -m cellcount_jax.predict INPUT --model M --output DIR."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cellcount_jax import cli


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    return cli.main(["count", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
