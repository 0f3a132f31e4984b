"""What codes stand for: the one formula of packed layers, on NumPy arrays and tensors alike.

A quantizer whose scale says something else gives it in these terms (``Quantizer.linear``).
"""

__all__ = ["dequantize"]


def dequantize(codes, scale, offset: float = 1.0):
    """The weight ``(F, N)`` of codes: sign(code) · (|code| − 1 + offset) · scale, 0 for a code 0.

    That is code · scale where the offset is 1.

    Args:
        codes: integers ``(F, N)`` in a floating-point dtype.
        scale: ``(S, G)``. S is 2 where positive (row 0) and negative (row 1) codes have scales of
            their own, else 1; G is F, or 1 for a scale that all filters share.
        offset: what the magnitude 1 stands for, in units of the scale.
    """
    if offset != 1:
        magnitude = abs(codes) - 1 + offset
        codes = (codes > 0) * magnitude - (codes < 0) * magnitude
    if len(scale) == 1:
        return codes * scale[0][:, None]
    return (codes > 0) * codes * scale[0][:, None] + (codes < 0) * codes * scale[1][:, None]
