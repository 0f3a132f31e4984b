import numpy as np

from ptq_det.packing.probabilities import PROBABILITY, fit, level_weights, magnitude_weights


def test_probabilities_are_symmetric_and_rise():
    assert (np.diff(PROBABILITY) >= 0).all() and PROBABILITY[128] == 32768
    assert (PROBABILITY[1:128] + PROBABILITY[:128:-1] == 65536).all()


def test_the_fitted_logits_are_those_of_the_frequencies():
    # 800 of 1000 codes are 0 and half of the others positive: log2(1/4) = -2, in eighths
    logits, bits = fit(np.array([[[100, 800, 100]]]), units=0)
    assert logits.tolist() == [[128 - 16, 128]]
    entropy = -(0.8 * np.log2(0.8) + 0.2 * np.log2(0.1)) * 1000
    assert entropy + 16 <= bits <= 1.001 * entropy + 16


def test_a_fit_over_levels_finds_the_intercept():
    odds = 0.1 * 2.0 ** (np.arange(6) * 4 / 8)  # a logit that rises by four units a level
    nonzero = np.round(1e6 * odds / (1 + odds)).astype(np.int64)
    counts = np.stack([nonzero // 2, 1_000_000 - nonzero, nonzero - nonzero // 2], -1)[None]
    logits, _ = fit(counts, units=4)
    assert abs(int(logits[0, 0]) - (128 + 8 * np.log2(0.1))) <= 1


def test_histograms_leave_no_symbol_out():
    assert level_weights(np.array([0, 0, 2])).tolist() == [255, 1, 128]
    assert len(level_weights(np.array([], int))) == 2
    assert magnitude_weights(np.array([1, 1, 3])).tolist() == [65535, 1, 32768]
