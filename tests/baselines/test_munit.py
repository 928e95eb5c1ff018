"""MUNIT: its losses from the formulas."""

from dataclasses import replace

import pytest
import torch
from baselines.translating import domain_batch

from cxrtut.baselines.munit import MUNIT, MunitTranslator, to_healthy
from cxrtut.baselines.pseudo_healthy import PseudoHealthy
from cxrtut.data.sample import abnormal, normal
from cxrtut.engine.task import Task, check_task
from cxrtut.nn.munit import STYLE, MunitDiscriminator, MunitGenerator, drawn_style


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small(**how):
    return MUNIT(
        *(MunitGenerator(1, 2) for _ in range(2)), *(MunitDiscriminator(1, 2, 2) for _ in range(2)),
        **how,
    )  # fmt: skip


def batch(b=4, size=32):
    return replace(
        domain_batch(b, size), image=torch.rand(b, 1, size, size) * 2 - 1,
        uniforms=torch.rand(b, 2 * STYLE),
    )  # fmt: skip


def l1(a, b):
    return (a - b).abs().mean()


@pytest.mark.parametrize("lambda_cycle", [0.0, 10.0])
def test_the_generators_loss_is_equation_5(lambda_cycle):
    task, data = small(lambda_cycle=lambda_cycle), batch()
    loss, terms = task.generator_loss(data)
    A, B = task.networks["abnormal"], task.networks["normal"]
    DA, DB = (task.networks[f"{n}_discriminator"] for n in ("abnormal", "normal"))
    x, y, styles = abnormal(data.image), normal(data.image), drawn_style(data.uniforms)
    of_b, of_a = abnormal(styles[:, :, None, None])[..., 0, 0], normal(styles[:, :, None, None])
    of_a = of_a[..., 0, 0]
    ca, cb, sa, sb = A.content(x), B.content(y), A.style(x), B.style(y)
    xb, xa = B.image(ca, of_b), A.image(cb, of_a)
    expected = {
        "adversarial": sum(((s - 1) ** 2).mean() for s in (*DB(xb), *DA(xa))),
        "image": l1(A.image(ca, sa), x) + l1(B.image(cb, sb), y),
        "content": l1(B.content(xb), ca) + l1(A.content(xa), cb),
        "style": l1(B.style(xb), of_b) + l1(A.style(xa), of_a),
    }
    total = expected["adversarial"] + 10 * expected["image"]
    total = total + expected["content"] + expected["style"]
    if lambda_cycle:
        expected["cycle"] = l1(A.image(B.content(xb), sa), x) + l1(B.image(A.content(xa), sb), y)
        total = total + lambda_cycle * expected["cycle"]
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-4)
    assert loss.item() == pytest.approx(total.item(), rel=1e-4)


def test_the_discriminators_loss_is_a_sum_over_resolutions_without_a_half():
    task, data = small(), batch()
    loss, _ = task.discriminator_loss(data)
    A, B = task.networks["abnormal"], task.networks["normal"]
    DA, DB = (task.networks[f"{n}_discriminator"] for n in ("abnormal", "normal"))
    styles = drawn_style(data.uniforms)
    with torch.no_grad():
        xb = B.image(A.content(data.image[1::2]), styles[1::2])
        xa = A.image(B.content(data.image[0::2]), styles[0::2])
    expected = sum(
        ((r - 1) ** 2).mean() + (f**2).mean()
        for D, real, fake in ((DB, data.image[0::2], xb), (DA, data.image[1::2], xa))
        for r, f in zip(D(real), D(fake), strict=True)
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    assert all(p.grad is None for p in A.parameters())


def test_every_part_of_a_generator_is_moved_by_its_loss():
    task = small()
    check_task(task)
    assert isinstance(task, Task)
    loss, _ = task.generator_loss(batch())
    loss.backward()
    for name in ("abnormal", "normal"):
        slopes = [p.grad for p in task.networks[name].parameters()]
        assert all(g is not None and torch.isfinite(g).all() for g in slopes)


def test_the_rate_is_halved_every_hundred_thousand_steps():
    task = small()
    rates = [task.schedule(step)["normal"] for step in (0, 99_999, 100_000, 250_000)]
    assert rates == [1.0, 1.0, 0.5, 0.25]


def test_a_healthy_image_has_the_content_of_the_image_and_the_mean_style():
    A, B = MunitGenerator(1, 2), MunitGenerator(1, 2)
    system = PseudoHealthy(MunitTranslator(A, B), to_healthy, ("A",), size=32, channels=1)
    x = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        expected = B.image(A.content(x), torch.zeros(2, STYLE))
    assert torch.allclose(system.predict(x).image, expected, atol=1e-6)
