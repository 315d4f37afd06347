"""Weights from elsewhere: named, found, downloaded, checked."""
