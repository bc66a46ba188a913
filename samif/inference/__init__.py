"""From an image to named instances: proposals, segmentation, drawing."""
