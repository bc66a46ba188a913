"""Images and their labels: read, check, draw shots, split, and the demo line."""
