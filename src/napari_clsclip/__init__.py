"""napari plugin of ClsCLIP: type a word, get a label layer.

The plugin draws and converts; models run in a backend process (:mod:`clsclip`). Nothing in this
package imports torch.
"""
