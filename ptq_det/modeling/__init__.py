"""Ternary builders; importing this registers them with Detectron2."""

from . import backbone, heads, mobilenet  # noqa: F401
