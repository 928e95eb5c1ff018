"""From a network or a pair of images to a heat map, and from a heat map to boxes."""
