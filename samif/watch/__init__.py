"""Performance watched over time: what one image shows, charts over a stream of images, and what is due.

Pure statistics and rules. Where images come from, and who is told, is the business of `flows.watch`.
"""
