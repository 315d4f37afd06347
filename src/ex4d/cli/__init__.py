"""One short typed function per command."""
