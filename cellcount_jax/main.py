"""The command: flags and one call.

python -m cellcount_jax.main --config=configs/vgg.py --config.data.dir=DIR --workdir=DIR
"""

from __future__ import annotations

import logging as std_logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from cellcount_jax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Settings of the run, a file of configs/, e.g. configs/vgg.py."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for all that the run writes; default: runs/<name of the config>."
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train_and_evaluate",
    ["train_and_evaluate", "evaluate"],
    "Train (or go on training) and evaluate, or evaluate the latest checkpoint.",
)
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def main(_: Sequence[str]) -> None:
    """Runs what the flags say."""
    # JAX is slow to import: flags are checked before.
    from cellcount_jax import evaluate, train

    config = _CONFIG.value
    workdir = Path(_WORKDIR.value or Path("runs") / config.name)
    started = time.perf_counter()
    if _MODE.value == "evaluate":
        content = train.evaluate_only(config, workdir)
    else:
        content = train.train_and_evaluate(config, workdir)
    if content is not None:
        print(f"\n{content['dataset']}\n{evaluate.as_table(content)}")
        print(f"* the rule of this run. {time.perf_counter() - started:.0f} s; see {workdir}")


def _parse(arguments: Sequence[str]) -> list[str]:
    """Parses flags; a wrong setting is one line instead of a traceback."""
    try:
        remaining = flags.FLAGS(list(arguments))
        if len(remaining) > 1:
            raise InputError(f"unexpected argument {remaining[1]!r}; settings are --config.key=value")
        if _CONFIG.value is None:
            raise InputError("--config is missing, e.g. --config=configs/vgg.py")
        return remaining
    except (InputError, flags.Error, LookupError, AttributeError, TypeError, ValueError, OSError) as error:
        if "--debug" in arguments:
            raise
        _exit(error)
        raise


def _exit(error: BaseException) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


def _main(arguments: Sequence[str]) -> None:
    try:
        main(arguments)
    except (InputError, OSError) as error:
        if _DEBUG.value:
            raise
        _exit(error)


if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    std_logging.getLogger("jax").setLevel(std_logging.WARNING)
    app.run(_main, flags_parser=_parse)
