"""Performance watched over time: what one picture shows, charts over a stream of pictures, and what is due.

Pure statistics and rules. Where pictures come from, and who is told, is the business of `flows.watch`.
"""
