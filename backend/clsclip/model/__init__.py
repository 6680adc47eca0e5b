"""The ClsCLIP network: frozen CLIP towers, replaced [CLS], decoder, checkpoints, model names."""
