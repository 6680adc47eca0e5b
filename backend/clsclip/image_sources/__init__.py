"""Images that are read part by part, or plane by plane: zarr, OME-Zarr, TIFF files and stacks.

Other files (PNG, JPEG, TIFF files that are compressed in one piece) have no parts: they are decoded
as a whole when the first part is read, and held. Nothing here imports torch.
"""

from clsclip.image_files import is_zarr
from clsclip.image_sources.opening import open_source
from clsclip.image_sources.source import ImageSource

__all__ = ["ImageSource", "is_zarr", "open_source"]
