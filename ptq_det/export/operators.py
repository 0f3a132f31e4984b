"""The operators of ONNX that exported graphs consist of; any other is refused by who reads them."""

__all__ = ["OPERATORS", "OPSET"]

OPSET = 17  # RoiAlign has half pixels from 16 on; older graphs lose a third of the AP in silence

_NAMES = """
    Add And Cast Clip Compress Concat ConstantOfShape Conv ConvTranspose DepthToSpace
    DequantizeLinear Div Equal Exp Expand Flatten Floor Gather GatherND Gemm Greater Identity Log
    MaxPool Max Min Mod Mul Neg NonMaxSuppression NonZero Pad QuantizeLinear Range Relu Reshape
    Resize RoiAlign ScatterElements Shape Sigmoid Slice Softmax Sqrt Squeeze Sub TopK Transpose
    Unsqueeze
"""
OPERATORS = frozenset(_NAMES.split())
