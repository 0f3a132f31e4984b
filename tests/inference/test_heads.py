import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from ptq_det.inference.heads import FloatMaps, Int8Pooler, ParallelPooler
from ptq_det.inference.ranges import Quantization

BOXES = Boxes(torch.tensor([[0.0, 0, 30, 40], [-9, -9, 64, 64], [5, 5, 6, 7], [50, 50, 90, 90]]))


def levels():
    shapes = ((1, 4, 16, 16), (1, 4, 8, 8))
    codes = [torch.randint(0, 256, shape, dtype=torch.uint8) for shape in shapes]
    return [x.contiguous(memory_format=torch.channels_last) for x in codes]


def test_threads_change_nothing():
    pooler = ROIAlign((7, 7), 0.25, 0)
    x = torch.randn(1, 3, 20, 20)
    boxes = torch.cat([torch.zeros(4, 1), BOXES.tensor], dim=1)
    for count in (0, 1, 4):
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found = ParallelPooler(pooler)(x, boxes[:count])
            assert torch.equal(found, pooler(x, boxes[:count]))
    torch.set_num_threads(1)


def test_pooled_codes_are_those_of_the_pooled_numbers():
    features = Quantization(0.05, 77)
    codes = levels()
    pooler = ROIPooler((5, 5), [1 / 4, 1 / 8], 0, "ROIAlignV2", canonical_box_size=32)
    expected = pooler([features.dequantize(x) for x in codes], [BOXES])
    found = Int8Pooler(pooler, features, FloatMaps(77), True)(codes, [BOXES])
    assert found.dtype == torch.uint8
    assert (features.dequantize(found) - expected).abs().max() <= 0.501 * features.scale


def test_maps_are_made_once_and_not_kept_for_ever():
    maps, codes = FloatMaps(3), levels()
    first = maps.of(codes, keep=True)
    assert torch.equal(first[0], codes[0].float() - 3) and first[0].is_contiguous()
    again = maps.of(list(codes), keep=False)
    assert again[0] is first[0] and not maps._maps
    other = maps.of(levels(), keep=True)
    assert other[0] is not first[0]
    assert maps.of(codes, keep=True)[0] is not other[0]
