import numpy as np

from ptq_det.packing.contexts import (
    COUNTED,
    COUNTS,
    KINDS,
    MOST_LEVELS,
    group,
    key_and_sign,
    level_grid,
    positions_of,
)


def test_positions_go_from_the_centre_outwards():
    positions = positions_of(3, 3)
    assert [p.index for p in positions] == [4, 1, 3, 5, 7, 0, 2, 6, 8]
    corner = positions[-1]
    assert corner.beside == (5, 7) and corner.diagonal == (4,)
    assert set(corner.others) == {0, 1, 2, 3, 6}
    assert [p.kind for p in positions] == [0, 2, 3, 3, 3, 5, 5, 5, 5]


def test_a_context_by_hand():
    # lower right corner: right middle is -1, lower middle 0, centre +1; upper left is not 0
    planes = np.zeros((9, 1, 1), np.int8)
    planes[5], planes[4], planes[0] = -1, 1, 1
    corner = positions_of(3, 3)[-1]
    level = np.full((1, 1), 2, np.uint8)
    key, sign = key_and_sign(planes, corner, COUNTS, level, 10)
    # lean 3 * -1 + 0 + 2 * 1 < 0, so the sign turns and the state is -(9 * -1 + 1) + 13
    assert sign.item() == -1
    assert key.item() == ((8 + 13) * KINDS * COUNTED + 5 * COUNTED + 1) * 10 + 2


def test_a_neighbourhood_and_its_negative_share_their_key():
    planes = np.random.default_rng(0).integers(-1, 2, (9, 20, 30), dtype=np.int8)
    level = np.zeros((20, 30), np.uint8)
    for position in positions_of(3, 3)[1:]:
        keys, signs = key_and_sign(planes, position, COUNTS, level, 1)
        other_keys, other_signs = key_and_sign(-planes, position, COUNTS, level, 1)
        known = signs != other_signs  # all but those whose neighbours are all zero
        assert known.any() and np.array_equal(keys[known], other_keys[known])


def test_keys_fit_into_sixteen_bits():
    assert 27 * KINDS * COUNTED * MOST_LEVELS <= 2**16
    assert level_grid(np.array([200]), np.array([100]), 301).item() == 300


def test_groups_are_sorted_by_key_and_stable():
    order, present, counts = group(np.array([[3, 1], [3, 1]], np.uint8), COUNTS)
    assert order.tolist() == [1, 3, 0, 2]
    assert present.tolist() == [1, 3] and counts.tolist() == [2, 2]
