"""Advice about the images and labels of a workspace, with what a run left of them."""
