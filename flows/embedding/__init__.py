"""Embed images: divided into shards, computed in this process or by workers of a Ray cluster, kept in the store."""
