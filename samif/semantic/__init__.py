"""The second, semantic encoder: a vision transformer of timm whose patch features say what a thing is."""
