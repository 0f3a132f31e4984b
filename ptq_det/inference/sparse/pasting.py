"""A detector whose masks are pasted into pictures by the kernels."""

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import BitMasks, ROIMasks
from torch import Tensor

from ...kernels import paste_masks

__all__ = ["PastingRCNN"]


class _PastedMasks(ROIMasks):
    """Masks of boxes, as Detectron2's postprocessing takes them."""

    def __getitem__(self, item) -> "_PastedMasks":
        """Of boxes that are chosen."""
        return _PastedMasks(super().__getitem__(item).tensor)

    def to_bitmasks(self, boxes: Tensor, height: int, width: int, threshold: float = 0.5):
        """As Detectron2's; ``boxes`` are ``Boxes``, as it passes them."""
        masks, corners = self.tensor.float().numpy(), boxes.tensor.numpy()
        threads = torch.get_num_threads()
        pasted = paste_masks(masks, corners, int(height), int(width), threshold, threads)
        return BitMasks(torch.from_numpy(pasted))


class PastingRCNN(GeneralizedRCNN):
    """Detectron2's ``GeneralizedRCNN``; kernels make masks of pictures of those of boxes."""

    def inference(self, batched_inputs, detected_instances=None, do_postprocess=True):
        """As Detectron2's."""
        found = super().inference(batched_inputs, detected_instances, do_postprocess=False)
        if not do_postprocess:
            return found
        for instances in found:
            if instances.has("pred_masks"):
                instances.pred_masks = _PastedMasks(instances.pred_masks[:, 0])
        sizes = [instances.image_size for instances in found]
        return GeneralizedRCNN._postprocess(found, batched_inputs, sizes)
