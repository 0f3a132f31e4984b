"""Names of what a packed file holds of a layer: the tensor ``L.codes`` is the part of layer L."""

__all__ = ["BIAS", "CODES", "PARTS", "SCALE", "SHIFTS", "STEP", "WEIGHT", "holds_codes"]

CODES, WEIGHT, SCALE, STEP, SHIFTS, BIAS = "codes", "weight", "scale", "step", "shifts", "bias"
PARTS = (CODES, WEIGHT, SCALE, STEP, SHIFTS, BIAS)


def holds_codes(tensor_name: str) -> bool:
    """Whether a tensor of a file holds the codes of a layer, by its full name."""
    return tensor_name.endswith(f".{CODES}")
