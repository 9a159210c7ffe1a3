"""Labelling: dots, acts and their journal, proposals; without Qt."""
