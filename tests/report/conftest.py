"""A browser that shows pages."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def browser() -> Callable[..., tuple[np.ndarray, str]]:
    """Shows a page in Chromium: the picture, and what the browser wrote."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")

    def show(path: Path, width: int, height: int) -> tuple[np.ndarray, str]:
        picture = path.with_suffix(".png")
        command = [found, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += ["--enable-logging=stderr", f"--user-data-dir={path.parent / 'profile'}"]
        command += [f"--window-size={width},{height}", f"--screenshot={picture}", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return np.asarray(Image.open(picture).convert("RGB")), done.stderr

    return show


@pytest.fixture(scope="session")
def width_in(browser: Callable[..., tuple[np.ndarray, str]]) -> Callable[[Path, int], int]:
    """How wide a page is in a window of some width: without a script, wider only by a mistake."""

    def measure(path: Path, width: int) -> int:
        probe = path.with_name("probe.html")
        source = path.read_text().replace(
            "</body>",
            "<script>document.title='wide';console.log('width',"
            "document.documentElement.scrollWidth)</script></body>",
        )
        probe.write_text(re.sub("<meta http-equiv.*>", "", source))
        _, log = browser(probe, width, 800)
        found = re.search(r'"width (\d+)"', log)
        assert found, log
        return int(found[1])

    return measure
