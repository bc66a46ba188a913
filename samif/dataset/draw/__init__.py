"""Drawn scenes: the demo line's industrial parts, and the endless variety that `tiny` is trained on.

Drawn, because no photograph may be shipped. Everything is deterministic by a numpy `Generator`.
Frame: images are (H, W, 3) uint8 RGB, masks (H, W), x to the right and y down, in pixels.
"""
