"""The SAU-Net, its layers and their convolutions."""
