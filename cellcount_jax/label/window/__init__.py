"""The window of `cellcount label`, in napari."""
