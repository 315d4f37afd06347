"""Files in and out: video, arrays, meshes, manifests."""
