"""Training data: images with their dots, data sets, generated images."""
