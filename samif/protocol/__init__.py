"""The K-shot, multi-seed protocol on features that are taken once: what ten seeds would cost hours costs minutes."""
