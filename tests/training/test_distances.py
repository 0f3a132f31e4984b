import math

import pytest
import torch

from ptq_det.training.distances import (
    anchor_distances,
    class_divergence,
    map_distance,
    mask_divergence,
)


def logit(p):
    return math.log(p / (1 - p))


def divergence(p, q):
    """Of a probability q from p."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_a_map_is_as_far_as_its_difference_over_the_targets_norm():
    found, target = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, 4.0]]]])
    assert float(map_distance(found, target)) == pytest.approx((4 + 4) / (9 + 16))
    assert float(map_distance(found, torch.zeros(1, 1, 1, 2))) == pytest.approx(1 + 4)


def test_class_divergence_is_the_mean_over_boxes():
    p, q = (0.7, 0.2, 0.1), (0.5, 0.25, 0.25)
    found = torch.tensor([q, p]).log()
    expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 2
    assert float(class_divergence(found, torch.tensor([p, p]).log())) == pytest.approx(expected)
    assert float(class_divergence(torch.zeros(0, 3), torch.zeros(0, 3))) == 0


def test_mask_divergence_is_the_mean_over_pixels():
    found = torch.tensor([[[[logit(0.5), logit(0.9)]]]])
    target = torch.tensor([[[[logit(0.8), logit(0.9)]]]])
    assert float(mask_divergence(found, target)) == pytest.approx(divergence(0.8, 0.5) / 2)


def test_anchors_count_by_what_is_not_background():
    # One picture, one place, two anchors.
    logits = torch.tensor([logit(0.1), logit(0.9)]).view(1, 2, 1, 1)
    to_logits = torch.tensor([logit(0.8), logit(0.5)]).view(1, 2, 1, 1)
    deltas = torch.zeros(1, 8, 1, 1)
    to_deltas = torch.tensor([1.0, -1, 0, 0, 2, 0, 0, 0]).view(1, 8, 1, 1)
    scores, boxes = anchor_distances([(logits, deltas)], [(to_logits, to_deltas)], 1)
    weights = (0.8, 0.9)
    expected = weights[0] * divergence(0.8, 0.1) + weights[1] * divergence(0.5, 0.9)
    assert float(scores) == pytest.approx(expected / sum(weights), rel=1e-5)
    assert float(boxes) == pytest.approx((0.8 * 2 + 0.5 * 2) / sum(weights), rel=1e-5)


def test_an_anchor_of_several_classes_counts_by_the_likeliest():
    logits = torch.tensor([logit(0.3), logit(0.1)]).view(1, 2, 1, 1)
    to_logits = torch.tensor([logit(0.6), logit(0.2)]).view(1, 2, 1, 1)
    deltas, to_deltas = torch.zeros(1, 4, 1, 1), torch.full((1, 4, 1, 1), 0.5)
    scores, boxes = anchor_distances([(logits, deltas)], [(to_logits, to_deltas)], 2)
    # Weights of less than one anchor in all are not made more of: they sum up to 0.6, over 1.
    assert float(scores) == pytest.approx(
        0.6 * (divergence(0.6, 0.3) + divergence(0.2, 0.1)), rel=1e-5
    )
    assert float(boxes) == pytest.approx(0.6 * 2, rel=1e-5)


def test_levels_are_summed_and_anchors_keep_their_deltas():
    torch.manual_seed(0)
    sizes = ((4, 6), (2, 3))
    found = [(torch.randn(2, 3, *s), torch.randn(2, 12, *s)) for s in sizes]
    target = [(torch.randn(2, 3, *s), torch.randn(2, 12, *s)) for s in sizes]
    scores, boxes = anchor_distances(found, target, 1)
    # The same, anchor by anchor.
    weights, total, off = 0.0, 0.0, 0.0
    for (a, d), (b, e) in zip(found, target, strict=True):
        for n in range(2):
            for anchor in range(3):
                p, q = b[n, anchor].sigmoid(), a[n, anchor].sigmoid()
                kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
                w = torch.maximum(p, q)
                apart = (
                    d[n, 4 * anchor : 4 * anchor + 4] - e[n, 4 * anchor : 4 * anchor + 4]
                ).abs()
                weights += float(w.sum())
                total += float((w * kl).sum())
                off += float((p * apart.sum(0)).sum())
    assert float(scores) == pytest.approx(total / weights, rel=1e-4)
    assert float(boxes) == pytest.approx(off / weights, rel=1e-4)


def test_no_gradient_goes_through_the_weights():
    # The student's are the larger probabilities, so that they are the weights.
    logits = torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1).requires_grad_()
    taught = torch.tensor([0.0, -1.0]).reshape(1, 2, 1, 1)
    deltas = torch.zeros(1, 8, 1, 1)
    scores, _ = anchor_distances([(logits, deltas)], [(taught, deltas)], 1)
    scores.backward()
    p, q = taught.sigmoid(), logits.detach().sigmoid()
    wanted = q * (q - p) / q.sum().clamp(min=1)  # of the divergence alone: q − p, by its weight q
    torch.testing.assert_close(logits.grad, wanted)
