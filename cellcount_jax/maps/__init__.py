"""Dots to maps and maps to dots: pure functions."""
