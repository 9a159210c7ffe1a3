"""Cell counting with the inverse distance kernel and self-supervised learning, in JAX.

Guo et al., "Cell counting with inverse distance kernel and self-supervised learning", 2022:
from a few dots on images to cell locations and counts, in 2D and 3D. The names in `__init__.pyi`
are the public ones; each function is pure unless it names a file. A name is imported when it is
first used, as JAX and what else is needed take seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
