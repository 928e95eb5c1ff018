"""Splits that several tests of localisation look at."""

import pytest
from evaluation.localised import one_box_each, study_of

from cxrtut.experiments.source import Source


@pytest.fixture(scope="session")
def simulated():
    return one_box_each(Source().all_diseases(32, 0, 160))


@pytest.fixture
def four_boxes():
    """A has two pairs, B one, C none; the fourth box is of a training image."""
    return study_of(
        (1, 0, 2.0, 2.0, 8.0, 8.0), (2, 0, 4.0, 4.0, 12.0, 12.0), (3, 1, 0.0, 0.0, 8.0, 6.0),
        (0, 2, 0.0, 0.0, 4.0, 4.0),
    )  # fmt: skip
