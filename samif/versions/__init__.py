"""What a version is, and whether it may go live."""
