"""Rendered ground truth, the field's metrics and protocols."""
