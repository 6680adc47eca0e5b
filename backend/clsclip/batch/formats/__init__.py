"""Label files of other programs, made from what labelling wrote; one file per format."""
