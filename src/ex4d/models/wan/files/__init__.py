"""Weight files of Wan, its adapter and LoRAs, in every layout."""
