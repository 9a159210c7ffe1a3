"""What the programs of `peers.py` share: requests on the standard input, answers on the output.

It runs in the environment of another program, and so imports nothing of cellcount_jax.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

# Volume (z, y, x), voxel edges in um, settings -> (N, 4) z, y, x in voxels and a score.
Find = Callable[[np.ndarray, Sequence[float], Mapping[str, Any]], np.ndarray]


def serve(find: Find) -> None:
    """Answers each request, a line of JSON, with a line of JSON, until the input ends.

    A request has `volume` (a .npy file), `spacing`, `settings` and, where the points are wanted,
    `output` (a .npy file). The answer has the seconds of the clock and of the processor, of all
    threads and processes that have ended, and the number of cells; or `error`.
    """
    # What a library prints is not to come between the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            try:
                answer = _answer(find, json.loads(line))
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers, flush=True)


def _answer(find: Find, request: Mapping[str, Any]) -> dict[str, Any]:
    volume = np.load(request["volume"])
    began, before = time.perf_counter(), sum(os.times()[:4])
    points = find(volume, request["spacing"], request["settings"])
    seconds, cpu = time.perf_counter() - began, sum(os.times()[:4]) - before
    if "output" in request:
        np.save(request["output"], np.asarray(points, np.float32).reshape(-1, 4))
    return {"seconds": seconds, "cpu_seconds": cpu, "cells": len(points)}
