"""Two versions on the same images: scores, verdict, page, Markdown."""
