"""A classifier of what a system takes away."""

import math

import pytest
import torch
from torch import nn

from cxrtut.baselines.difference_classifier import DifferenceClassifier
from cxrtut.data.sample import Prediction, System
from cxrtut.nn.backbones import ResNet10


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def images_of(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 16, 16, generator=generator) * 1.6 - 0.8


class Less:
    """A system whose images are darker by d, clipped to the range of images."""

    classes, size, channels = ("Pneumonia",), 16, 1

    def __init__(self, d):
        self.d, self.networks = d, {"generator": nn.Identity()}

    def predict(self, images):
        return Prediction(image=(images - self.d).clamp(-1, 1))


class Mean(nn.Module):
    """Logits -w m and w m of the mean m of an image."""

    def __init__(self, w):
        super().__init__()
        self.w = w

    def forward(self, x):
        mean = self.w * x.mean((1, 2, 3))
        return torch.stack((-mean, mean), dim=1)


def test_the_score_is_what_the_classifier_says_of_the_difference():
    # G takes .25 from every pixel, and C weighs the mean of the difference with 3 for "abnormal"
    system = DifferenceClassifier(Less(0.25), Mean(3.0))
    found = system.predict(torch.zeros(3, 1, 16, 16))
    expected = 1 / (1 + math.exp(-2 * 3 * 0.25))
    assert found.scores.flatten().tolist() == pytest.approx([expected] * 3)
    assert found.heatmap is None and isinstance(system, System)
    assert (system.classes, system.size, system.channels) == (("Pneumonia",), 16, 1)
    assert set(system.networks) == {"generator", "classifier"}


def test_scores_are_read_in_evaluation_mode_and_the_mode_is_put_back():
    classifier = ResNet10(1, 4).train()
    system = DifferenceClassifier(Less(0.25), classifier)
    before = {name: buffer.clone() for name, buffer in classifier.named_buffers()}
    images = images_of(5)
    found = system.predict(images)
    assert classifier.training and not found.scores.requires_grad
    assert all(torch.equal(classifier.get_buffer(name), b) for name, b in before.items())
    alone = torch.cat([system.predict(image[None]).scores for image in images])
    torch.testing.assert_close(found.scores, alone)


def test_differences_are_measured_as_they_are_read_from_clipped_images():
    seen = []
    classifier = ResNet10(1, 4)
    classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    system = DifferenceClassifier(Less(-1.5), classifier)
    images = images_of(4)
    system.measure_differences([images])
    torch.testing.assert_close(seen[0], images - (images + 1.5).clamp(max=1))


def test_the_statistics_of_the_classifier_are_those_of_the_differences_now():
    classifier = ResNet10(1, 4)
    stem = classifier.features.get_submodule("block1")
    seen = []
    classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    system = DifferenceClassifier(Less(0.25), classifier)
    classifier.eval()
    before = stem.norms[0].running_mean.clone()
    batches = [images_of(4, seed=k) for k in range(3)]
    system.measure_differences(batches)
    assert not torch.equal(stem.norms[0].running_mean, before)
    assert not classifier.training and all(n.momentum == 0.1 for n in stem.norms)
    for given, images in zip(seen, batches, strict=True):
        torch.testing.assert_close(given, images - (images - 0.25).clamp(-1, 1))
    # The mean over batches of what the first norm sees
    first = [stem.first(classifier.features.get_submodule("stem")(given)) for given in seen]
    mean = torch.stack([f.mean((0, 2, 3)) for f in first]).mean(0)
    torch.testing.assert_close(stem.norms[0].running_mean, mean)


def test_statistics_of_no_images_are_refused_and_the_old_ones_kept():
    classifier = ResNet10(1, 4)
    system = DifferenceClassifier(Less(0.25), classifier)
    system.measure_differences([images_of(4)])
    before = {name: buffer.clone() for name, buffer in classifier.named_buffers()}
    with pytest.raises(ValueError, match="batches: expected one at least, got none"):
        system.measure_differences([])
    assert all(torch.equal(classifier.get_buffer(name), b) for name, b in before.items())


def test_a_system_without_images_is_refused():
    silent = Less(0.25)
    silent.predict = lambda images: Prediction()
    with pytest.raises(ValueError, match="remover: expected a system that answers with images"):
        DifferenceClassifier(silent, Mean(1.0)).predict(images_of(2))
