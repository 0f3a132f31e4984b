"""Lets Detectron2 have its deformable convolutions where it is not compiled.

Their classes are stand-ins there, that cannot be built. The real ones need the compiled part on a
GPU alone: on a CPU ``DeformConv`` runs forward, by torchvision, and ``ModulatedDeformConv`` does
not run. Imported before anything else of Detectron2.
"""

import importlib
import sys
from types import ModuleType

import detectron2

try:
    importlib.import_module("detectron2._C")
except ImportError:
    detectron2._C = sys.modules["detectron2._C"] = ModuleType("detectron2._C")
    importlib.import_module("detectron2.layers")
    del detectron2._C, sys.modules["detectron2._C"]
