"""The training loop, one pure step, batches, and the folder of a run."""
