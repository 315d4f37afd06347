"""Foreign camera files, one file per format."""
