"""Weights as matrices of filters, one output channel a row: tensors, and NumPy arrays too."""

__all__ = ["filter_shape", "from_filters", "to_filters"]


def to_filters(weight, groups: int | None = None):
    """A weight as ``(F, N)``.

    Args:
        weight: tensor of a convolution or a linear layer.
        groups: of a transposed convolution, whose outputs are on dimension 1; None for others.
    """
    if groups is None:
        return weight.reshape(len(weight), -1) if weight.numel() else weight.new_zeros(1, 0)
    inputs, outputs, height, width = weight.shape
    grouped = weight.reshape(groups, inputs // groups, outputs, height, width)
    return grouped.swapaxes(1, 2).reshape(groups * outputs, -1)


def from_filters(filters, shape: tuple[int, ...], groups: int | None = None):
    """The reverse of :func:`to_filters`, for a weight of the given shape."""
    if groups is None:
        return filters.reshape(shape)
    inputs, outputs, height, width = shape
    grouped = filters.reshape(groups, outputs, inputs // groups, height, width)
    return grouped.swapaxes(1, 2).reshape(shape)


def filter_shape(shape: tuple[int, ...], groups: int | None = None) -> tuple[int, int, int, int]:
    """F, inputs that a filter sees, height and width of the filters of a weight of a shape."""
    if groups is None:
        return (*shape, *[1] * (4 - len(shape)))
    inputs, outputs, height, width = shape
    return groups * outputs, inputs // groups, height, width
