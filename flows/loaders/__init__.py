"""What stages read: data sets, embeddings, checkpoints, encoders, the decoder."""
