import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch import nn

from .outputs import assert_same_outputs


class Finds(nn.Module):
    """Gives what it is made with."""

    def __init__(self, **outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, pictures):
        return [self.outputs]


def instances(boxes, classes):
    found = Instances((9, 9))
    found.pred_boxes = Boxes(torch.tensor(boxes))
    found.pred_classes = torch.tensor(classes)
    found.scores = torch.full((len(boxes),), 0.5)
    return found


ONE, OTHER = [1.0, 2.0, 5.0, 6.0], [3.0, 3.0, 8.0, 8.0]


def test_the_order_of_boxes_is_of_no_matter():
    first = Finds(instances=instances([ONE, OTHER], [0, 1]))
    assert_same_outputs(first, Finds(instances=instances([OTHER, ONE], [1, 0])), {})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"instances": instances([ONE], [0])}, {"instances": instances([ONE], [1])}),
        ({"instances": instances([ONE], [0])}, {"instances": instances([OTHER], [0])}),
        (
            {"instances": instances([ONE, ONE], [0, 0])},
            {"instances": instances([ONE, OTHER], [0, 0])},
        ),
        ({"sem_seg": torch.ones(2, 4, 4)}, {"sem_seg": torch.ones(2, 4, 4) * 1.01}),
        ({"panoptic_seg": (torch.ones(4, 4), [])}, {"panoptic_seg": (torch.zeros(4, 4), [])}),
        ({"sem_seg": torch.ones(2)}, {"proposals": instances([ONE], [0])}),
    ],
)
def test_other_outputs_are_refused(given, wanted):
    assert_same_outputs(Finds(**given), Finds(**given), {})
    with pytest.raises(AssertionError):
        assert_same_outputs(Finds(**given), Finds(**wanted), {})


def test_nothing_is_not_compared():
    empty = Finds(instances=instances([ONE], [0])[:0])
    with pytest.raises(AssertionError, match="instances is empty"):
        assert_same_outputs(empty, empty, {})
