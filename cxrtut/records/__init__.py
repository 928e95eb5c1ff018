"""What runs left: records of what was measured, networks, and the claims that are tested on them."""
