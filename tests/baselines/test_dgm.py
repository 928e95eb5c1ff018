"""DGM: its networks by number, its losses by hand, and what both public codes get wrong."""

from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from baselines.translating import domain_batch
from torch import nn

from cxrtut.baselines.dgm import DGM, DisentangledInput, to_healthy, total_variation
from cxrtut.baselines.pseudo_healthy import PseudoHealthy
from cxrtut.data.sample import normal
from cxrtut.engine.task import Task, check_task
from cxrtut.nn.dgm import DisentangledGenerator, PatchScores


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def of_convolutions(network):
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    return sum(p.numel() for layer in layers for p in layer.parameters())


def small():
    return DGM(DisentangledGenerator(1, 2, 2), PatchScores(1, 4, 2))


def batch(b=4, size=16):
    return replace(domain_batch(b, size), image=torch.rand(b, 1, size, size) * 2 - 1)


def test_the_networks_are_as_large_as_those_of_the_public_code():
    network = DisentangledGenerator()
    parts = (network.content_encoder, network.residue_encoder, network.normal_decoder)
    assert [of_convolutions(p) for p in parts] == [21_700_672, 21_700_672, 29_736_961]
    assert of_convolutions(network.residue_decoder) == 29_736_961
    assert of_convolutions(network.joint_decoder) == 32_621_057
    assert of_convolutions(network) == 135_496_323
    assert sum(p.numel() for p in PatchScores().parameters()) == 2_762_689


def test_the_encoder_of_the_residue_has_no_norm_and_hears_the_level_of_grey():
    network = DisentangledGenerator(1, 4, 2)
    x = torch.rand(2, 1, 16, 16)
    assert not [m for m in network.residue_encoder.modules() if "Norm" in type(m).__name__]
    torch.testing.assert_close(
        network.content_encoder(3 * x), network.content_encoder(x), atol=0.1, rtol=0.1
    )
    far = (network.residue_encoder(3 * x) - network.residue_encoder(x)).abs().mean()
    assert far > 0.1 * network.residue_encoder(x).abs().mean()


@pytest.mark.parametrize(("halvings", "size"), [(2, 16), (3, 32), (4, 64), (5, 64)])
def test_images_keep_their_size(halvings, size):
    x = torch.rand(1, 1, size, size)
    made = DisentangledGenerator(1, 2, halvings)(x)
    assert all(m.shape == x.shape and m.abs().max() <= 1 for m in made)


def test_images_that_do_not_divide_are_refused():
    network = DisentangledGenerator(1, 2, 3)
    with pytest.raises(ValueError, match="16 or more, divisible by 8, got 20 x 16"):
        network.normal(torch.zeros(1, 1, 20, 16))
    with pytest.raises(ValueError, match="2 to 5 halvings, got 1, 64 and 6"):
        DisentangledGenerator(halvings=6)
    with pytest.raises(ValueError, match="channels, base and halvings of 1 or more"):
        PatchScores(1, 0)


def test_the_total_variation_is_that_of_neighbours_and_does_not_wrap_around():
    x = torch.tensor([[[[0.0, 1.0, 3.0], [0.0, 1.0, 3.0]]]])
    assert total_variation(x).item() == pytest.approx(1.5)


def test_the_generators_loss_is_equation_6():
    task, data = small(), batch()
    loss, terms = task.generator_loss(data)
    G, D, x = task.networks["generator"], task.networks["discriminator"], data.image
    N, R, J = G(x)
    expected = {
        "adversarial": ((D(N) - 1) ** 2).mean() / 2,
        "reconstruction": (N + R - x).abs().mean() + (J - x).abs().mean(),
        "residue": R[0::2].abs().mean(),
        "variation": total_variation(N),
    }
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-5)
    total = 10 * expected["adversarial"] + expected["variation"]
    total = total + 10 * (expected["reconstruction"] + expected["residue"])
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)


def test_the_adversarial_term_reaches_the_generator():
    """One public code grades D's answer to x, which no generator has made."""
    task = small()
    for name in ("lambda_reconstruction", "lambda_variation"):
        setattr(task, name, 0.0)
    loss, _ = task.generator_loss(batch())
    loss.backward()
    G = task.networks["generator"]
    for part in (G.content_encoder, G.normal_decoder):
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())


def test_only_normal_images_are_real_to_the_discriminator():
    """The other public code shows it abnormal ones as real, too."""
    task, data = small(), batch()
    G, D = task.networks["generator"], task.networks["discriminator"]
    loss, _ = task.discriminator_loss(data)
    real, made = D(normal(data.image)), D(G.normal(data.image))
    expected = ((real - 1) ** 2).mean() / 2 + (made**2).mean() / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert all(p.grad is None for p in G.parameters())
    blank = replace(data, image=torch.where(
        (torch.arange(4) % 2 == 0)[:, None, None, None], data.image, torch.zeros(())
    ))  # fmt: skip
    assert torch.equal(D(normal(blank.image)), real)


def test_the_joint_decoder_is_trained():
    """In one public code a part of it is made anew at every call."""
    task = small()
    check_task(task)
    assert isinstance(task, Task)
    loss, _ = task.generator_loss(batch())
    loss.backward()
    joint = task.networks["generator"].joint_decoder
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in joint[0].skip.parameters())
    x = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(task.networks["generator"](x)[2], task.networks["generator"](x)[2])


def test_as_a_system_it_gives_the_normal_image():
    G = DisentangledGenerator(1, 2, 2)
    system = PseudoHealthy(G, to_healthy, ("A",), size=16, channels=1)
    x = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        expected = G.normal(x)
    answer = system.predict(x)
    assert torch.allclose(answer.image, expected, atol=1e-6)
    assert torch.allclose(answer.heatmap[:, 0], (x - expected).abs()[:, 0], atol=1e-6)


def test_a_detector_sees_the_image_the_normal_one_and_the_residue():
    G = DisentangledGenerator(1, 2, 2).eval()
    seen = []

    class Backbone(nn.Module):
        out_channels, strides = 8, (4,)

        def forward(self, x):
            seen.append(x)
            return OrderedDict({"4": x})

    both = DisentangledInput(Backbone(), G)
    x = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        N, R, _ = G(x)
        both(x)
    assert torch.equal(seen[0], torch.cat((x, N, R), 1))
    assert not list(both.parameters()) and (both.out_channels, both.strides) == (8, (4,))
