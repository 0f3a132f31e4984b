"""Kernels of the engine ``sparse``: ternary convolutions by additions. NumPy alone."""

from .layer import KernelLayer
from .library import Kernels, why_no_kernels
from .maps import Map, Maps, roi_align
from .pasting import paste_masks

__all__ = ["KernelLayer", "Kernels", "Map", "Maps", "paste_masks", "roi_align", "why_no_kernels"]
