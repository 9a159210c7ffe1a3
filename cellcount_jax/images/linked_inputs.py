"""Which of the inputs of a command are one image: linked OME-TIFF files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from cellcount_jax.errors import InputError
from cellcount_jax.images.linked_ome import LinkedImages
from cellcount_jax.images.tiff import linked_to


class LinkedInputs:
    """The linked files that were found so far, so that an image is an input once.

    It is known by the file with its first plane, or by one that has more images, whichever of its
    files is given. The other files are not opened again.
    """

    def __init__(self, show: Callable[[str], None]):
        """Knows no file; `show` is called with a line about each image of several files."""
        self._found: dict[Path, LinkedImages] = {}
        self._unread: set[Path] = set()  # files with an error of their own
        self._undescribed: set[Path] = set()  # what should describe files, and does not
        self._show = show

    def join(self, paths: Sequence[Path]) -> list[Path]:
        """The paths, with one file in the place of all that are linked with it.

        Args:
          paths: files and folders.

        Returns:
          Those that are images not seen before; a file that cannot be read is one of them.
        """
        joined = []
        for path in paths:
            if path.resolve() in self._found:
                continue
            try:
                linked = _linked(path)
            except InputError:
                self._unread.add(path.resolve())
                joined.append(path)
                continue
            if linked is None:
                joined.append(path)
                continue
            first, others = linked.known_by, len(linked.files) + len(linked.missing) - 1
            known = first.resolve() in {*self._found, *self._unread}  # by another copy of a file
            self._found |= {file.resolve(): linked for file in (path, *linked.files)}
            if not linked.files and linked.metadata is not None:
                known = linked.metadata in self._undescribed
                self._undescribed.add(linked.metadata)
            if known:
                continue
            if others > 0:
                self._show(f"{first}: is one image with {others} linked OME-TIFF file(s)")
            joined.append(first)
        return joined

    def is_part(self, path: Path) -> bool:
        """Whether another path stands for a file, which was an input itself as it cannot be read.

        Args:
          path: of an input.
        """
        linked = self._found.get(path.resolve())
        return linked is not None and linked.known_by.resolve() != path.resolve()

    def members(self, path: Path) -> tuple[Path, ...]:
        """All files that are read with one that was joined.

        Args:
          path: of an input.
        """
        linked = self._found.get(path.resolve())
        return () if linked is None else linked.read

    def check_slices(self, paths: Collection[Path]) -> None:
        """Checks that 2D images that are to be slices are no positions or time points.

        Args:
          paths: of files that were joined.

        Raises:
          InputError: with the first that is one.
        """
        for path in paths:
            linked = self._found.get(path.resolve())
            if linked is not None and not linked.alone:
                raise InputError(
                    f"{path}: is a 2D position or time point of a set of linked OME-TIFF files, and"
                    " no plane of a volume. Count it with a model of 2D images, or, if these files"
                    " are planes, save them as one file, for example with ImageJ."
                )


def _linked(path: Path) -> LinkedImages | None:
    """The files that a file is linked with; None of what is not."""
    if path.suffix.lower() not in (".tif", ".tiff") or not path.is_file():
        return None
    return linked_to(path)
