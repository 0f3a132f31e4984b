"""What a model found, of whatever kind it is, drawn into a picture or a frame of a video."""

from dataclasses import dataclass

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.structures import Instances
from detectron2.utils.colormap import colormap
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import Visualizer
from torch import nn

from ..errors import InputError

__all__ = [
    "Found",
    "draw_frame",
    "draw_picture",
    "metadata_of",
    "refuse_undrawable",
    "set_threshold",
]

_PROPOSALS = 20  # that are drawn, as Detectron2 does in training


def refuse_undrawable(cfg: CfgNode, path: str) -> None:
    """Raise :class:`InputError` for a model that a picture alone is not enough for."""
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "PrecomputedProposals":
        raise InputError(
            f"{path} is a Fast R-CNN, which needs proposals with each picture; draw with a model "
            "that makes them (Faster, Mask R-CNN), or evaluate this one with train_net "
            "--eval-only and DATASETS.PROPOSAL_FILES_TEST"
        )


def metadata_of(path: str, cfg: CfgNode, classes: list[str]) -> Metadata:
    """Names and colours that Detectron2 draws by.

    Args:
        path: of the model, which the metadata are named for.
        classes: names of the objects' classes, or none. Classes of pixels have numbers: a packed
            file does not name them.
    """
    metadata = Metadata(name=path)
    count = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    colors = colormap(rgb=True, maximum=255).tolist()
    metadata.stuff_classes = [f"class {number}" for number in range(count)]
    metadata.stuff_colors = [colors[number % len(colors)] for number in range(count)]
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
        metadata.thing_classes = ["proposal"]
    elif classes:
        metadata.thing_classes = classes
    elif cfg.MODEL.META_ARCHITECTURE == "PanopticFPN":
        metadata.thing_classes = [str(n) for n in range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)]
    return metadata


def set_threshold(model: nn.Module, threshold: float) -> None:
    """Tell a panoptic model the least score of its objects: it lays their masks by that."""
    if hasattr(model, "combine_instances_score_thresh"):
        model.combine_instances_score_thresh = threshold


@dataclass(frozen=True)
class Found:
    """What of a prediction is drawn, on the CPU.

    Attributes:
        kind: "objects", "proposals", "segments" (panoptic) or "classes" (of pixels).
        count: how many.
        instances: of objects and proposals.
        pixels: (height, width), number of each pixel's segment or class.
        segments: what each segment is, as Detectron2 has it.
    """

    kind: str
    count: int
    instances: Instances | None = None
    pixels: torch.Tensor | None = None
    segments: list[dict] | None = None

    @classmethod
    def of(cls, predicted: dict, threshold: float) -> "Found":
        """What a model of Detectron2 gives for a picture; objects by their least score.

        Raises:
            InputError: it is nothing of the kind.
        """
        pixels, segments = predicted.get("panoptic_seg", (None, None))
        if segments is not None:
            return cls("segments", len(segments), pixels=pixels.cpu(), segments=segments)
        if "instances" in predicted:
            instances = predicted["instances"].to("cpu")
            instances = instances[instances.scores >= threshold]
            return cls("objects", len(instances), instances)
        if "proposals" in predicted:
            instances = _best(predicted["proposals"].to("cpu"), threshold)
            return cls("proposals", len(instances), instances)
        if "sem_seg" in predicted:
            pixels = predicted["sem_seg"].argmax(dim=0).cpu()
            return cls("classes", len(pixels.unique()), pixels=pixels)
        raise InputError(f"nothing is known of how to draw {', '.join(predicted) or 'nothing'}")

    def __str__(self):
        return f"{self.count} {self.kind}"


def _best(proposals: Instances, threshold: float) -> Instances:
    """The best proposals as objects of one class; their score is that of being any object."""
    scores = proposals.objectness_logits.sigmoid()
    best = scores.argsort(descending=True)[:_PROPOSALS]
    best = best[scores[best] >= threshold]
    boxes, classes = proposals.proposal_boxes[best], torch.zeros_like(best)
    return Instances(
        proposals.image_size, pred_boxes=boxes, scores=scores[best], pred_classes=classes
    )


def draw_picture(image: np.ndarray, found: Found, metadata: Metadata, scale: int) -> np.ndarray:
    """A picture with what was found; both (height, width, 3), BGR.

    Args:
        scale: how many times as large it becomes.
    """
    drawing = Visualizer(image[:, :, ::-1], metadata, scale)
    if found.segments is not None:
        drawn = drawing.draw_panoptic_seg(found.pixels, found.segments)
    elif found.pixels is not None:
        drawn = drawing.draw_sem_seg(found.pixels)
    else:
        drawn = drawing.draw_instance_predictions(found.instances)
    return np.ascontiguousarray(drawn.get_image()[:, :, ::-1])


def draw_frame(image: np.ndarray, found: Found, video: VideoVisualizer) -> np.ndarray:
    """A frame with what was found, of its size; objects keep their colours from frame to frame."""
    frame = np.ascontiguousarray(image[:, :, ::-1])
    if found.segments is not None:
        drawn = video.draw_panoptic_seg_predictions(frame, found.pixels, found.segments)
    elif found.pixels is not None:
        drawn = video.draw_sem_seg(frame, found.pixels)
    else:
        drawn = video.draw_instance_predictions(frame, found.instances)
    return np.ascontiguousarray(drawn.get_image()[:, :, ::-1])
