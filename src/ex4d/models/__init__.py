"""Find, download and verify weights; offline first."""
