"""Two versions on the same pictures: scores, verdict, page, Markdown."""
