"""Who is compared with whom: the field's protocols, and folders of outputs scored by them."""
