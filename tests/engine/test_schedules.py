"""Learning rates, above all at their last step."""

import pytest

from cxrtut.engine.schedules import cosine_decay, linear_decay


def test_linear_decay_trains_in_its_last_step_and_would_be_zero_one_later():
    rates = [linear_decay(s, steps=10, start=5) for s in range(10)]
    assert rates[:6] == [1.0] * 6
    assert rates[5:] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_cosine_decay_warms_up_and_falls_to_nearly_nothing():
    rates = [cosine_decay(s, steps=104, warm_up=4) for s in range(104)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[54] == pytest.approx(0.5) and 0 < rates[-1] < 1e-3
    assert rates[4:] == sorted(rates[4:], reverse=True)


@pytest.mark.parametrize("decay", [linear_decay, cosine_decay])
def test_a_step_outside_the_run_is_refused(decay):
    for step in (-1, 10):
        with pytest.raises(ValueError, match=rf"step: expected one in \[0, 10\), got {step}"):
            decay(step, steps=10)


def test_a_decay_that_starts_after_the_end_is_refused():
    with pytest.raises(ValueError, match="start: expected"):
        linear_decay(0, steps=10, start=10)
    with pytest.raises(ValueError, match="warm_up: expected"):
        cosine_decay(0, steps=10, warm_up=10)
