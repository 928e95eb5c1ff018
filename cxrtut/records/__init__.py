"""What runs left: records of what was measured, networks, and the claims tested on them."""
