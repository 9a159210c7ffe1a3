"""What tifffile logs is an error of the block that reads, in whatever thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.images.tiff_complaints import no_complaints

LOGGER = logging.getLogger("tifffile")


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    before = LOGGER.level, LOGGER.disabled, list(LOGGER.filters)
    yield
    assert before == (LOGGER.level, LOGGER.disabled, list(LOGGER.filters))


def reads(name: str, begun: threading.Barrier, *, complaint: bool) -> None:
    with no_complaints(Path(name)):
        begun.wait(5)
        if complaint:
            LOGGER.warning("<tifffile.TiffPage 0> %s is cut off", name)
        begun.wait(5)


def test_of_two_that_read_at_once_the_one_that_is_damaged_is_named() -> None:
    begun = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        good = pool.submit(reads, "good.tif", begun, complaint=False)
        bad = pool.submit(reads, "bad.tif", begun, complaint=True)
        with pytest.raises(InputError, match=r"bad\.tif: damaged .*bad\.tif is cut off"):
            bad.result()
        good.result()


def test_what_is_logged_in_another_thread_is_not_lost() -> None:
    with pytest.raises(InputError, match="cut off"), no_complaints(Path("a.tif")):
        other = threading.Thread(target=lambda: LOGGER.error("cut off"))
        other.start()
        other.join()


def test_a_block_in_another_has_its_own_complaints() -> None:
    with no_complaints(Path("outer.tif")):
        with pytest.raises(InputError, match=r"inner\.tif"), no_complaints(Path("inner.tif")):
            LOGGER.warning("cut off")
        LOGGER.info("nothing")
