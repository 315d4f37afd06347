"""Where depth comes from: a plane, a file, a network."""
