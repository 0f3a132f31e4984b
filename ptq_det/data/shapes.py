"""The built-in data set: generated pictures of textured, overlapping shapes, in COCO format."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_utils
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from PIL import Image, ImageDraw
from tqdm import tqdm

__all__ = ["CLASSES", "SPLITS", "draw_picture", "generate_shapes", "register_shapes"]

CLASSES = ("circle", "square", "triangle", "star", "cross", "ring")
_COLORS = [
    (230, 60, 60),
    (60, 120, 230),
    (70, 180, 70),
    (240, 170, 40),
    (160, 80, 200),
    (40, 180, 190),
]
SPLITS = {"train": 1000, "val": 250}  # pictures
_SEEDS = {"train": 1, "val": 2}
_VERSION = 1  # of the pictures; a change of how they are drawn is a new version
_SIZE = 128
_SUPERSAMPLING = 2
_MIN_VISIBLE = 0.4  # an object of which less is to be seen is not annotated but taken away


def _polygon(corners: int, inner: float, phase: float) -> np.ndarray:
    """Corners ``(n, 2)`` in the unit circle; ``inner < 1`` pulls every second one in: a star."""
    n = corners if inner == 1 else 2 * corners
    angles = phase + 2 * np.pi * np.arange(n) / n
    radius = np.where(np.arange(n) % 2 == 0, 1.0, inner)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None]


def _cross(phase: float) -> np.ndarray:
    a, b = 1.0, 0.34
    corners = [(a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b)]
    corners = np.array(corners + [(-x, -y) for x, y in corners]) * 0.9
    c, s = np.cos(phase), np.sin(phase)
    return corners @ np.array([[c, s], [-s, c]])


def _shape_mask(kind: str, center: np.ndarray, radius: float, phase: float) -> np.ndarray:
    """Mask ``(H, W)`` of one shape, at the size that pictures are drawn in."""
    side = _SIZE * _SUPERSAMPLING
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    if kind in ("circle", "ring"):
        for r, fill in ((radius, 255), (0.55 * radius, 0))[: 1 if kind == "circle" else 2]:
            draw.ellipse([*(center - r), *(center + r)], fill=fill)
    else:
        corners = {
            "square": lambda: _polygon(4, 1, phase),
            "triangle": lambda: _polygon(3, 1, phase),
            "star": lambda: _polygon(5, 0.45, phase),
            "cross": lambda: _cross(phase),
        }[kind]()
        draw.polygon([tuple(p) for p in center + radius * corners], fill=255)
    return np.asarray(image) > 0


def _texture(rng: np.random.Generator, contrast: float) -> np.ndarray:
    """A random texture ``(H, W, 3)``, values 0 to 255: plain, striped, checked, graded, noisy."""
    side = _SIZE * _SUPERSAMPLING
    first = rng.uniform(0, 255, 3)
    second = np.clip(first + rng.choice([-1, 1], 3) * rng.uniform(0.4, 1, 3) * contrast, 0, 255)
    y, x = np.mgrid[:side, :side] / side
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(4, 16)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    weight = {
        "plain": lambda: np.zeros_like(x),
        "stripes": lambda: (along * frequency % 1) > 0.5,
        "checks": lambda: ((along * frequency % 1) > 0.5) ^ ((across * frequency % 1) > 0.5),
        "gradient": lambda: (along - along.min()) / np.ptp(along),
        "noise": lambda: np.kron(rng.random((side // 8, side // 8)), np.ones((8, 8))),
    }[rng.choice(["plain", "stripes", "checks", "gradient", "noise"])]()
    return first + (second - first) * np.asarray(weight, dtype=float)[..., None]


def draw_picture(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw one picture.

    Args:
        rng: source of all randomness.

    Returns:
        RGB pixels ``(128, 128, 3)`` uint8, and for each object its class and the mask
        ``(128, 128)`` of what is to be seen of it.
    """
    side = _SIZE * _SUPERSAMPLING
    canvas = _texture(rng, contrast=60)
    shown: list[tuple[int, np.ndarray, int]] = []
    for _ in range(rng.integers(2, 8)):
        label = int(rng.integers(len(CLASSES)))
        radius = side * np.exp(rng.uniform(np.log(0.06), np.log(0.28)))
        center = rng.uniform(0.6 * radius, side - 0.6 * radius, 2)
        mask = _shape_mask(CLASSES[label], center, radius, rng.uniform(0, 2 * np.pi))
        texture = _texture(rng, contrast=120)
        visible = [(c, m & ~mask, area) for c, m, area in shown]
        if any(m.sum() < _MIN_VISIBLE * area for _, m, area in visible):
            continue  # it would hide too much of an earlier one
        shown = [*visible, (label, mask, int(mask.sum()))]
        canvas = np.where(mask[..., None], texture, canvas)
    canvas = canvas + rng.normal(0, rng.uniform(2, 14), canvas.shape)
    pixels = _shrink(np.clip(canvas, 0, 255)).round().astype(np.uint8)
    return pixels, [(label, _shrink(mask.astype(float)) >= 0.5) for label, mask, _ in shown]


def _shrink(image: np.ndarray) -> np.ndarray:
    k = _SUPERSAMPLING
    return image.reshape(_SIZE, k, _SIZE, k, *image.shape[2:]).mean(axis=(1, 3))


def generate_shapes(folder: Path, split: str, pictures: int | None = None) -> None:
    """Write one split: ``<folder>/<split>/*.png`` and ``<folder>/annotations/<split>.json``.

    The same pictures come out each time. The annotations are moved to their place last, so a
    split that has them is whole.

    Args:
        folder: where to write.
        split: "train" or "val".
        pictures: how many; by default all of the split's.
    """
    folder = Path(folder)
    target = folder / "annotations" / f"{split}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder))
    images, annotations = [], []
    count = SPLITS[split] if pictures is None else pictures
    for image_id in tqdm(range(1, count + 1), desc=f"drawing shapes_{split}", leave=False):
        pixels, objects = draw_picture(np.random.default_rng([_SEEDS[split], image_id]))
        name = f"{image_id:04d}.png"
        Image.fromarray(pixels).save(scratch / name)
        images.append({"id": image_id, "file_name": name, "height": _SIZE, "width": _SIZE})
        for label, mask in objects:
            rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": mask_utils.toBbox(rle).tolist(),
                    "area": int(mask_utils.area(rle)),
                    "iscrowd": 0,
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    coco = {
        "info": {"description": f"ptq_det shapes, version {_VERSION}"},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    (scratch / "annotations.json").write_text(json.dumps(coco))
    if not target.exists():  # another process may have been faster
        if (folder / split).exists():
            shutil.rmtree(folder / split)
        annotations_file = scratch / "annotations.json"
        finished = annotations_file.rename(folder / f"{split}.json.{os.getpid()}")
        scratch.rename(folder / split)
        finished.rename(target)
    else:
        shutil.rmtree(scratch)


def shapes_folder() -> Path:
    """Where the built-in data set lies: the user's cache folder."""
    cache = os.getenv("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "ptq_det" / f"shapes-v{_VERSION}"


def register_shapes() -> None:
    """Register ``shapes_train`` and ``shapes_val``; pictures are drawn when first asked for."""
    for split in SPLITS:
        name = f"shapes_{split}"
        if name in DatasetCatalog:
            continue
        folder = shapes_folder()
        annotations = folder / "annotations" / f"{split}.json"

        def prepare(folder=folder, split=split, annotations=annotations):
            if not annotations.exists():
                generate_shapes(folder, split)

        def load(prepare=prepare, annotations=annotations, images=folder / split, name=name):
            prepare()
            return load_coco_json(str(annotations), str(images), name)

        DatasetCatalog.register(name, load)
        MetadataCatalog.get(name).set(
            thing_classes=list(CLASSES),
            thing_colors=_COLORS,
            evaluator_type="coco",
            json_file=str(annotations),
            image_root=str(folder / split),
            prepare=prepare,
        )
