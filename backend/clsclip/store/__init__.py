"""The annotation store: what people have corrected, kept for training, never overwritten."""
