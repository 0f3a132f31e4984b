import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from ptq_det.inference.int8.heads import Int8Pooler
from ptq_det.inference.ranges import Quantization

BOXES = Boxes(torch.tensor([[0.0, 0, 30, 40], [-9, -9, 64, 64], [5, 5, 6, 7], [50, 50, 90, 90]]))


def levels(count):
    shapes = ((1, 150, 16, 16), (1, 150, 8, 8))[:count]
    codes = [torch.randint(0, 256, shape, dtype=torch.uint8) for shape in shapes]
    return [x.contiguous(memory_format=torch.channels_last) for x in codes]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_pooled_codes_are_those_of_the_pooled_numbers(count, threads):
    features = Quantization(0.05, 77)
    codes = levels(count)
    scales = [1 / 4, 1 / 8][:count]
    pooler = ROIPooler((5, 5), scales, 0, "ROIAlignV2", canonical_box_size=32)
    expected = pooler([features.dequantize(x) for x in codes], [BOXES])
    torch.set_num_threads(threads)
    found = Int8Pooler(pooler, features)(codes, [BOXES])
    nothing = Int8Pooler(pooler, features)(codes, [BOXES[:0]])
    torch.set_num_threads(1)
    assert found.dtype == torch.uint8
    assert (features.dequantize(found) - expected).abs().max() <= 0.501 * features.scale
    assert nothing.shape == (0, 150, 5, 5)
