"""Triangle meshes seen from a camera: one law (base.py), several backends."""
