from ptq_det.inference.sparse.steps import Steps


def test_codes_span_a_range_with_zero_at_zero():
    assert Steps.of(0.0, 5.11, 511) == Steps(5.11 / 511, 0, 511)
    signed = Steps.of(-10.22, 5.11, 511)
    assert (signed.low, signed.high) == (-511, 256) and signed.step == 10.22 / 511


def test_a_range_of_nothing():
    assert Steps.of(0.0, 0.0, 511) == Steps(1.0, 0, 1)
