"""Which images to label next: image features, the uncertainty of their names, and the choice."""
