"""A workspace on disk: its layout, lock, params.yaml, dvc.yaml, revision and run requests."""
