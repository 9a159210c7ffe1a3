"""Matching with dots, thresholds, scores."""
