"""Training: CLIP pre-training of small models, the ClsCLIP head, evaluation."""
