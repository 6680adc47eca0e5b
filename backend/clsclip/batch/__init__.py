"""Many images in, label files out."""
