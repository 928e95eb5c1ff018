"""Configurations from the words of a command line."""

import pytest
from cxrtut.experiments.configuration import ConfigurationError, override

from cxrtut.papers.biomarker import SMOKE


def test_fields_are_replaced_with_values_of_their_type():
    config = override(SMOKE, ["steps=12", "lambda_1=2", "residual=false"])
    assert (config.steps, config.lambda_1, config.residual) == (12, 2.0, False)
    assert isinstance(config.lambda_1, float) and config.base == SMOKE.base
    assert override(SMOKE, []) == SMOKE


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("stepps=3", "expected NAME=VALUE with a name of size, channels, .* got 'stepps=3'"),
        ("steps", "expected NAME=VALUE"),
        ("steps=many", "steps: expected a whole number, got 'many'"),
        ("steps=1.5", "steps: expected a whole number, got '1.5'"),
        ("eta=high", "eta: expected a number, got 'high'"),
        ("residual=maybe", "residual: expected true or false, got 'maybe'"),
        ("batch_size=3", "batch_size: expected an even number, got 3"),
    ],
)
def test_what_cannot_be_is_refused_by_name(setting, words):
    with pytest.raises(ConfigurationError, match=words):
        override(SMOKE, [setting])
