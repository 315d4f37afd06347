"""The machine and its files: atomic writes, hashes, arrays on disk, threads."""
