"""The parts of the page that reports a count: pictures, charts and their words."""
