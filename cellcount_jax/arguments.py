"""Arguments that several commands of `cellcount` have."""

from __future__ import annotations

import argparse


def add_source(parser: argparse.ArgumentParser) -> None:
    """What is read of an image, and its voxel size; see `sources.open_source`."""
    parser.add_argument(
        "--spacing",
        type=numbers,
        help="voxel edges in um, z,y,x or y,x, in place of what the files say",
    )
    parser.add_argument(
        "--channel", help="number, from 0, or name of the channel to use (default: all)"
    )
    parser.add_argument("--time", type=int, help="number, from 0, of the time point to use")
    parser.add_argument(
        "--level", type=int, default=0, help="of a pyramid, 0 (the default) is the finest"
    )


def numbers(text: str) -> tuple[float, ...]:
    """Of a text such as '6,1.62,1.62'."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: numbers with commas are needed") from error


def whole_numbers(text: str) -> tuple[int, ...]:
    """Of a text such as '1,256,256'."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        message = f"{text!r}: whole numbers with commas are needed"
        raise argparse.ArgumentTypeError(message) from error
