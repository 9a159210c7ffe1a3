"""A trained model and the cells that it finds in an image of any size."""
