"""Labelling: proposals and their correction, in napari.

`session.py` is all of the logic, without Qt: dots, acts, blocks, files. What is drawn is computed
in `ghosts.py` and `scenes.py`; `widget.py` is what napari shows.
"""
