"""Pictures as arrays: sizes, flow, tracks."""
