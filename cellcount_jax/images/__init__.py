"""Files to arrays and back, of any size: readers, writers, voxel sizes, normalisation."""
