"""Pictures and the HTML page of a count."""
