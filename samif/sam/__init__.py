"""The Segment Anything Model: checkpoints, fast encoder, batched mask decoder. Needs torch and segment_anything."""

from samif.sam.lazy_import import defer_package

defer_package()
