"""The last layer of a classifier, or what stands in its place."""

import pytest
import torch
from torch import nn

from cxrtut.nn.backbones import VGG19, ResNet10
from cxrtut.nn.linear_head import linear_head


def test_it_is_the_linear_layer_itself():
    network = ResNet10(width=4)
    assert linear_head(network) is linear_head(network, with_bias=True) is network.classifier


def test_another_layer_and_one_without_bias_are_named():
    with torch.device("meta"):
        large = VGG19()
    with pytest.raises(TypeError, match=r"classifier: expected one nn\.Linear, got Sequential$"):
        linear_head(large)
    network = ResNet10(width=4)
    network.classifier = nn.Linear(32, 2, bias=False)
    assert linear_head(network) is network.classifier
    told = r"expected one nn\.Linear with a bias, got Linear without$"
    with pytest.raises(TypeError, match=told):
        linear_head(network, with_bias=True)
