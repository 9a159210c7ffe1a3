"""The command: flags and one call.

python -m cellcount_jax.main --config=configs/vgg.py --config.data.dir=DIR --workdir=DIR
"""

from __future__ import annotations

import importlib.metadata
import logging as std_logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from cellcount_jax import interrupts

if __name__ == "__main__":
    interrupts.quit_at_once()  # before what follows, which takes seconds

from absl import app, flags, logging
from ml_collections import config_flags

from cellcount_jax import cache, overrides
from cellcount_jax import config as settings
from cellcount_jax.errors import InputError, fail, in_words
from cellcount_jax.evaluation import evaluate
from cellcount_jax.images import files
from cellcount_jax.inference import model_file
from cellcount_jax.training import fine_tuning, parallel, train

Result = TypeVar("Result")

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
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "Training in several processes: host:port of process 0, or auto on a TPU pod. Under SLURM"
    " srun's tasks find each other without it.",
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")
_VERSION = flags.DEFINE_bool("version", False, "Print the version and stop.")
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def main(_: Sequence[str]) -> None:
    """Runs the mode that the flags name."""
    config = _CONFIG.value
    if config.init_from:
        given = config_flags.get_override_values(flags.FLAGS["config"])
        fine_tuning.follow(config, model_file.load_model(config.init_from), given=given)
    workdir = Path(_WORKDIR.value or Path("runs") / config.name)
    files.check_folder(workdir)
    started = time.perf_counter()
    cache.keep_programs()
    parallel.start_processes(
        coordinator=_COORDINATOR.value,
        num_processes=_NUM_PROCESSES.value,
        process_id=_PROCESS_ID.value,
    )
    if not parallel.is_first():
        logging.set_verbosity(logging.WARNING)
    if _MODE.value == "evaluate":
        content = parallel.on_first(lambda: train.evaluate_only(config, workdir))
    else:
        content = train.train_and_evaluate(config, workdir)
    if content is not None:
        print(f"\n{content['dataset']}\n{evaluate.as_table(content)}")
        print(f"{time.perf_counter() - started:.0f} s; pictures and points in {workdir}/evaluation")


def _parse(arguments: Sequence[str]) -> list[str]:
    """Parses the flags.

    Raises:
      InputError: names the flag or the setting that is wrong, and what is allowed.
    """
    try:
        remaining = flags.FLAGS(overrides.with_config_found(arguments))
        if _VERSION.value:
            print(f"cellcount_jax {importlib.metadata.version('cellcount_jax')}")
            sys.exit()
        if len(remaining) > 1:
            raise InputError(
                f"unexpected argument {remaining[1]!r}; settings are --config.key=value"
            )
        if _CONFIG.value is None:
            raise InputError("--config is missing, e.g. --config=configs/vgg.py")
        # A config file that could not be read says so here, when the first setting is asked for.
        if not _CONFIG.value.name:
            raise InputError("config.name = '': must not be empty, the default workdir has it")
        for key in settings.flatten(_CONFIG.value.to_dict()):
            overrides.check_key(key)  # a config file can set what is no setting
        return remaining
    except (LookupError, AttributeError) as error:
        for argument in arguments:
            key = argument.lstrip("-").split("=")[0]
            if key.startswith("config."):
                overrides.check_key(key.removeprefix("config."))
        raise error
    except OSError as error:
        raise InputError(f"--config: {in_words(error)}") from error
    except (flags.Error, TypeError, ValueError) as error:
        first = _first_cause(error)
        if isinstance(first, InputError):  # such as a variant that there is not
            raise first from error
        # An error inside a config file comes with its traceback in the text.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        plain = lines[-1] if "Traceback" in str(error) else " ".join(lines)
        raise InputError(plain) from error


def _first_cause(error: BaseException) -> BaseException:
    """The error that others were raised for."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _fails_plainly(call: Callable[[Sequence[str]], Result]) -> Callable[[Sequence[str]], Result]:
    """Turns an error of the user's into one line and exit status 1, and so Ctrl-C."""

    def wrapped(arguments: Sequence[str]) -> Result:
        try:
            interrupts.raise_interrupt()
            return call(arguments)
        except KeyboardInterrupt:
            interrupts.leave()
        except Exception as error:
            if _DEBUG.present and _DEBUG.value:
                raise
            sys.exit(fail(error))
        finally:
            interrupts.quit_at_once()

    return wrapped


if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    std_logging.getLogger("jax").setLevel(std_logging.WARNING)
    logging.get_absl_handler().setFormatter(std_logging.Formatter("%(asctime)s %(message)s"))
    app.run(_fails_plainly(main), flags_parser=_fails_plainly(_parse))
