"""The line: depth, mesh, render, completion."""
