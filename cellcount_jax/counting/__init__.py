"""The command `cellcount count`: files to tables and reports."""
