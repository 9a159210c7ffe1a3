"""What napari shows of cellcount beside labelling: a panel that counts, and sample data."""
