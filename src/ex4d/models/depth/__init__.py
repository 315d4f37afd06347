"""Depth networks and their weights."""
