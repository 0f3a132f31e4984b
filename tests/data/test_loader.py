import itertools

import pytest
import torch
from detectron2.data import DatasetFromList

from ptq_det.data.loader import ResumableBatchSampler, build_resumable_train_loader


def first_batches(loader, count):
    return [
        [
            (x["file_name"], float(x["image"].float().sum()), x["instances"].gt_boxes.tensor.sum())
            for x in batch
        ]
        for batch in itertools.islice(loader, count)
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_later_start_continues_the_stream(cfg, workers):
    cfg.INPUT.MIN_SIZE_TRAIN = (48, 56, 64)  # random augmentation
    cfg.DATALOADER.NUM_WORKERS = workers
    whole = first_batches(build_resumable_train_loader(cfg), 9)
    assert len({sizes for batch in whole for _, sizes, _ in batch}) > 9
    for start in (1, 5):
        loader = build_resumable_train_loader(cfg)
        loader.batch_sampler.start = start
        torch.randn(3)  # the state of the random numbers must not matter
        assert first_batches(loader, 9 - start) == whole[start:]


def test_other_seeds_give_other_data(cfg):
    first = first_batches(build_resumable_train_loader(cfg), 3)
    cfg.SEED = 2
    assert first_batches(build_resumable_train_loader(cfg), 3) != first


def test_batches_hold_pictures_of_one_group():
    groups = [0, 1, 0, 0, 1, 1, 0]
    sampler = ResumableBatchSampler(itertools.cycle(range(7)), 2, groups)
    batches = list(itertools.islice(sampler, 50))
    assert all(len(batch) == 2 for batch in batches)
    assert all(groups[a] == groups[b] for (_, a), (_, b) in batches)
    assert batches[0] == [(0, 0), (2, 2)] and batches[1] == [(1, 1), (4, 4)]


def test_a_batch_that_cannot_be_shared_out_is_refused(cfg, monkeypatch):
    monkeypatch.setattr("ptq_det.data.loader.comm.get_world_size", lambda: 3)
    with pytest.raises(ValueError, match=r"SOLVER.IMS_PER_BATCH is 2.*multiple.*3"):
        build_resumable_train_loader(cfg)


def test_a_picture_that_the_mapper_refuses_is_passed_over(cfg):
    names = []

    def mapper(record):
        names.append(record["file_name"])
        return None if len(names) == 1 else record

    batch = next(iter(build_resumable_train_loader(cfg, mapper)))
    assert [x["file_name"] for x in batch] == names[1:3]
    with pytest.raises(ValueError, match="returned None for every picture"):
        next(iter(build_resumable_train_loader(cfg, lambda record: None)))


def test_workers_share_the_pictures_dicts(cfg):
    loader = build_resumable_train_loader(cfg)
    held = loader.dataset.dicts
    assert isinstance(held, DatasetFromList) and not isinstance(held._lst, list)
    first, second = held[0], held[0]
    assert first == second and first is not second  # what a mapper changes is its own
