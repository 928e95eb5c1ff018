"""What is measured of any system, whatever paper it is from."""
