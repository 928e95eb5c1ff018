"""Generators of healthy images as systems."""

import pytest
import torch
from torch import Tensor, nn

from cxrtut.baselines import fixed_point_gan, stargan, vagan
from cxrtut.baselines.pseudo_healthy import PseudoHealthy
from cxrtut.data.sample import System
from cxrtut.localize.residual import residual_heatmap
from cxrtut.nn.stargan import StarGANGenerator


class Modes(nn.Module):
    """Counts its images, and remembers its modes and whether gradients were wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((len(x), self.training, torch.is_grad_enabled()))
        return x


def brighter(generator: nn.Module, images: Tensor) -> Tensor:
    return generator(images) + 0.75


def system_of(generator: nn.Module, to_healthy=brighter, classes=("Pneumonia",)) -> PseudoHealthy:
    return PseudoHealthy(generator, to_healthy, classes, size=16, channels=2)


def test_a_prediction_is_the_clipped_image_and_what_was_changed():
    generator, images = Modes().train(), torch.rand(3, 2, 16, 16) * 2 - 1
    system = system_of(generator)
    assert isinstance(system, System) and system.networks == {"generator": generator}
    assert (system.classes, system.size, system.channels) == (("Pneumonia",), 16, 2)
    found = system.predict(images)
    healthy = (images + 0.75).clamp(-1, 1)
    assert torch.equal(found.image, healthy) and found.image.max() == 1
    assert torch.equal(found.heatmap, (images - healthy).abs().mean(1, keepdim=True))
    assert found.heatmap.max() <= 0.7501 and found.scores is None and found.boxes is None


def test_reading_is_done_in_evaluation_mode_in_parts_and_without_gradients():
    generator = Modes().train()
    found = system_of(generator).predict(torch.zeros(10, 2, 64, 64))
    assert generator.seen == [(8, False, False), (2, False, False)] and generator.training
    assert found.image.shape == (10, 2, 64, 64) and found.heatmap.shape == (10, 1, 64, 64)
    generator.eval()
    system_of(generator).predict(torch.zeros(1, 2, 4, 4))
    assert not generator.training


def test_several_diseases_share_one_heat_map():
    system = system_of(Modes(), classes=("Mass", "Nodule"))
    assert system.classes == ("any of Mass, Nodule",)
    assert system.predict(torch.zeros(2, 2, 4, 4)).heatmap.shape == (2, 1, 4, 4)


GENERATORS = {
    "StarGAN": (StarGANGenerator(2, 2, 4, 1), stargan.to_healthy),
    "Fixed-Point GAN": (StarGANGenerator(2, 2, 4, 1), fixed_point_gan.to_healthy),
    "VA-GAN": (vagan.MapGenerator(2, 2), vagan.to_healthy),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_that_is_compared_answers(name):
    generator, to_healthy = GENERATORS[name]
    images = torch.rand(3, 2, 16, 16) * 2 - 1
    found = system_of(generator, to_healthy).predict(images)
    healthy = to_healthy(generator.eval(), images).detach()
    torch.testing.assert_close(found.image, healthy)
    torch.testing.assert_close(found.heatmap[:, 0], residual_heatmap(images, healthy))
    assert found.heatmap.std() > 1e-3 and not found.image.requires_grad


@pytest.mark.parametrize("name", GENERATORS)
def test_no_images_have_no_answer(name):
    found = system_of(*GENERATORS[name]).predict(torch.zeros(0, 2, 16, 16))
    assert found.image.shape == (0, 2, 16, 16) and found.heatmap.shape == (0, 1, 16, 16)
