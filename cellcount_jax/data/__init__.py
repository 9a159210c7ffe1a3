"""What is trained on: images with their dots, data sets, generated images."""
