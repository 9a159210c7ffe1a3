"""What is kept between runs: compiled programs, in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import jax
import platformdirs
from absl import logging

from cellcount_jax.errors import in_words
from cellcount_jax.machine import processor_facts

# Of JAX's compiled programs; the least recently used ones go first.
_MAX_BYTES = 2 * 1024**3


def cache_folder() -> Path:
    """This machine's part of the package's folder in the user's cache, made if it is not there.

    A home folder may be shared by machines whose processors need other machine code.

    Raises:
      OSError: it cannot be made or written.
    """
    folder = platformdirs.user_cache_path("cellcount_jax") / _processor()
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder}: cannot be written")
    return folder


def keep_programs() -> None:
    """Has JAX keep what it compiles, so that a second start does not compile it again.

    Where the user has set JAX's own option (JAX_COMPILATION_CACHE_DIR), that one holds.
    """
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    try:
        folder = cache_folder() / "programs"
    except OSError as error:
        logging.warning("compiled programs are not kept for the next start: %s", in_words(error))
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _processor() -> str:
    """A name for all processors that run the same machine code."""
    facts = processor_facts()
    known = {line for line in facts if line.startswith(("model name", "flags", "Features", "CPU"))}
    text = "\n".join([platform.machine(), *sorted(known or facts)])
    return f"{platform.machine()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
