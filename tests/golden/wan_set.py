"""What the golden files do not say: head counts, by width (golden README: set a and the held-out set)."""

#: Width -> attention heads of the tiny denoisers and image towers of the golden sets.
DIT_HEADS = {72: 3, 64: 2}
CLIP_HEADS = {36: 3, 32: 2}
