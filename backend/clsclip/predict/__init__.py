"""From an image and words to probabilities: scaling, tiles, the predictor."""
