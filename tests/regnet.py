"""A RegNet with few channels, for tests."""

from detectron2.modeling.backbone.regnet import RegNet, ResBottleneckBlock, SimpleStem

__all__ = ["narrow_regnet"]


def narrow_regnet(depth: int = 2) -> RegNet:
    """One stage of ``depth`` blocks."""
    return RegNet(
        stem_class=SimpleStem,
        stem_width=8,
        block_class=ResBottleneckBlock,
        depth=depth,
        w_a=8,
        w_0=8,
        w_m=2.0,
        group_width=4,
        norm="BN",
        out_features=["s1"],
    )
