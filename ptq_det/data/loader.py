"""A training data loader that can start at any iteration.

Detectron2's own loader starts its stream of pictures anew after a resume, so a run that was
stopped sees other data than one that was not. Here every batch is a function of the seed and the
iteration: the order comes from Detectron2's sampler, pictures are grouped by aspect ratio before
they are read, and the random augmentation of a sample is seeded by its place in the stream.
"""

import itertools

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, DatasetMapper
from detectron2.data.build import _train_loader_from_config, trivial_batch_collator
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import InputError

__all__ = ["ResumableBatchSampler", "build_resumable_train_loader", "check_batch"]

# Distance between the seeds of two ranks or two samples: primes, so that streams do not meet.
_SAMPLE_STRIDE, _RANK_STRIDE = 1_000_003, 7_919


class ResumableBatchSampler(Sampler):
    """Endless batches of (place in the stream, picture), from batch ``start`` on.

    Args:
        sampler: yields picture indices without end, the same ones each time it is iterated.
        batch_size: pictures a batch.
        groups: a group number for each picture; a batch holds pictures of one group. None puts
            all pictures into one.
    """

    def __init__(self, sampler, batch_size: int, groups: list[int] | None = None):
        self.sampler = sampler
        self.batch_size = batch_size
        self.groups = groups
        self.start = 0

    def _batches(self):
        waiting: dict[int, list[tuple[int, int]]] = {}
        for place, index in enumerate(self.sampler):
            group = self.groups[index] if self.groups else 0
            batch = waiting.setdefault(group, [])
            batch.append((place, index))
            if len(batch) == self.batch_size:
                yield batch
                waiting[group] = []

    def __iter__(self):
        yield from itertools.islice(self._batches(), self.start, None)


class _MappedDataset(Dataset):
    """Applies a mapper to (place, picture) with random numbers that depend on the place alone.

    Pictures' dicts are kept in one array of bytes, which workers share: Python's objects are copied
    to each of them as their counts of references change.
    """

    def __init__(self, dicts, mapper, seed: int):
        self.dicts = DatasetFromList(dicts, copy=False)
        self.mapper, self.seed = mapper, seed
        self.offset = comm.get_rank() * _RANK_STRIDE  # workers of the loader know no rank

    def __len__(self):
        return len(self.dicts)

    def __getitem__(self, item):
        place, index = item
        if self.seed >= 0:
            seed_all_rng((self.seed + self.offset + place * _SAMPLE_STRIDE) % 2**31)
        for tried in range(len(self.dicts)):
            sample = self.mapper(self.dicts[(index + tried) % len(self.dicts)])
            if sample is not None:  # a mapper may refuse a picture; take the next one
                return sample
        raise ValueError("the data set mapper returned None for every picture of DATASETS.TRAIN")


def check_batch(cfg: CfgNode, processes: int) -> None:
    """Raise :class:`InputError` if the pictures of a step cannot be shared out among processes."""
    batch = cfg.SOLVER.IMS_PER_BATCH
    if batch < processes or batch % processes:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH is {batch}; it must be a multiple of the number of processes, "
            f"{processes}"
        )


def build_resumable_train_loader(cfg: CfgNode, mapper=None) -> DataLoader:
    """Build the loader of ``DATASETS.TRAIN``; its ``batch_sampler.start`` is the first iteration.

    Samplers, mapper, grouping and workers are those of Detectron2's
    ``build_detection_train_loader`` for the same config.

    Args:
        cfg: the full config. ``SEED < 0`` gives every run its own random augmentation.
        mapper: what turns a data set dict into a training sample; Detectron2's by default.

    Raises:
        InputError: ``SOLVER.IMS_PER_BATCH`` is not a multiple of the number of processes.
    """
    world = comm.get_world_size()
    check_batch(cfg, world)
    mapper = mapper or DatasetMapper(cfg, is_train=True)
    parts = _train_loader_from_config(cfg, mapper=mapper)
    dicts = parts["dataset"]
    sampler = parts["sampler"]
    if cfg.SEED >= 0 and cfg.DATALOADER.SAMPLER_TRAIN == "TrainingSampler":
        sampler = TrainingSampler(len(dicts), seed=cfg.SEED)
    groups = None
    if cfg.DATALOADER.ASPECT_RATIO_GROUPING:
        groups = [int(d.get("width", 0) > d.get("height", 0)) for d in dicts]
    # A generator of its own: starting workers must not draw from the model's random numbers, or
    # the first step after a resume would differ.
    generator = torch.Generator()
    generator.manual_seed(cfg.SEED) if cfg.SEED >= 0 else generator.seed()
    return DataLoader(
        _MappedDataset(dicts, mapper, cfg.SEED),
        batch_sampler=ResumableBatchSampler(sampler, cfg.SOLVER.IMS_PER_BATCH // world, groups),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        generator=generator,
    )
