"""Fine-tune the decoder with several workers of a Ray cluster, by Ray Train (the only user of `ray.train`)."""
