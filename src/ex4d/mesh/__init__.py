"""The Depth Watertight Mesh: depth and colour of one frame in, vertices, faces and hidden surfaces out."""
