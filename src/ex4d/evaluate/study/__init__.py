"""A user study: forms and their analysis."""
