"""A folder of one's own: images with dots in a CSV beside them, and images without.

    python -m cellcount_jax.main --config=configs/folder.py --config.data.dir=FOLDER
    python -m cellcount_jax.main --config=configs/folder.py:3d --config.data.dir=FOLDER

`a.tif` or `a.png` with `a.csv` (header y,x or z,y,x; a cell a row, in voxels) is labelled; an
image without a CSV is used without labels with `:focal`, the paper's loss, which costs as much
time again and did not pay on real nuclei (RESULTS.md). `cellcount train FOLDER` is the same with
settings that follow from the images. Sized for 2 cores, where it takes as long as
configs/vgg.py:supervised in 2D and configs/lightsheet_microglia.py:supervised in 3D; the score
depends on the images. What to adapt first: `--config.evaluation.max_distance` (about a cell's
radius, in um if the voxel size is known, else in pixels) and, for cells of another size than 8 to
20 pixels, `--config.detect.min_distance`.

`:paper` is the paper's full recipe for images on an accelerator: not run.
"""

import ml_collections

from cellcount_jax import variants


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings for images; `:3d` for volumes, or one of `variants.VARIANTS`."""
    config = variants.folder_config()
    variants.use_variant(config, variant, {**variants.VARIANTS, "3d": variants.use_volumes})
    return config
