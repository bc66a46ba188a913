"""From a picture to named instances: proposals, segmentation, drawing."""
