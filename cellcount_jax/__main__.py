"""The program `cellcount`, also `python -m cellcount_jax`: Ctrl-C, then the command."""

from __future__ import annotations

import sys

from cellcount_jax import interrupts


def main() -> int:
    """Runs the command of the command line; returns the exit status."""
    interrupts.quit_at_once()  # before anything that takes long to import
    from cellcount_jax import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
