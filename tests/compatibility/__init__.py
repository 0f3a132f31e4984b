import tests.deformable  # noqa: F401  (before anything of Detectron2)
