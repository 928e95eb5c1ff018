"""Nothing but the disease tells an abnormal image: healthy twins teach a classifier nothing."""

import pytest
import torch
import torch.nn.functional as F

from cxrtut.data.phantom import ChestPhantom, PhantomSample
from cxrtut.foundations.radiograph import rank_equalise, shrink
from cxrtut.metrics.classification import auroc, hanley_standard_error
from cxrtut.nn.backbones import ResNet10

TRAINING, TEST = 800, 500


@pytest.fixture(scope="module")
def sample() -> PhantomSample:
    phantom = ChestPhantom(64, "easy", classes=("Cardiomegaly", "Effusion", "Mass", "Pneumonia"))
    return phantom.sample(torch.arange(TRAINING + TEST))


def area_after_training(image: torch.Tensor, abnormal: torch.Tensor) -> float:
    """AUROC on held-out patients of a small network trained to tell abnormal from normal."""
    x, y = rank_equalise(shrink(image, 32)), abnormal.float()
    torch.manual_seed(0)
    network = ResNet10(width=8, classes=8, stride=16)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for rows in torch.randint(TRAINING, (240, 32)):
        loss = F.binary_cross_entropy_with_logits(network(x[rows])[:, 0], y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return auroc(network.eval()(x[TRAINING:])[:, 0], abnormal[TRAINING:])


def test_the_disease_itself_is_learnt(sample):
    assert area_after_training(sample.image, sample.label_vector.any(1)) > 0.8


def test_the_healthy_twins_of_the_abnormal_tell_nothing(sample):
    abnormal = sample.label_vector.any(1)
    positives = int(abnormal[TRAINING:].sum())
    chance = 3 * hanley_standard_error(0.5, positives, TEST - positives)
    assert abs(area_after_training(sample.healthy, abnormal) - 0.5) < chance
