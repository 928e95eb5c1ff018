"""Pictures in a notebook: images, curves, widgets, and the library's own source."""
