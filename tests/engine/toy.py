"""A small adversarial task and its data, for the tests of the engine; run by torchrun, a program
that trains it and saves what came out.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cxrtut.data.augment import Augmentation
from cxrtut.data.loader import Loader
from cxrtut.data.sample import Batch
from cxrtut.data.store import ArrayStore
from cxrtut.engine.distributed import init_distributed
from cxrtut.engine.loop import train
from cxrtut.engine.task import Phase, Report, Task
from cxrtut.losses.adversarial import wasserstein_critic_loss, wasserstein_generator_loss
from cxrtut.losses.gradient_penalty import gradient_penalty
from cxrtut.randomness import balanced, seeded

AUGMENTATION = Augmentation(rotation=5, translation=0.05, brightness=0.1)


def toy_store(n: int = 24, size: int = 8) -> ArrayStore:
    """Noise; every other image is "abnormal" and has a bright corner."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(40, 160, (n, 1, size, size), generator=generator, dtype=torch.uint8)
    labels = (torch.arange(n) % 2).to(torch.uint8)[:, None]
    images[1::2, :, :3, :3] = 240
    return ArrayStore.from_arrays(
        images=images.numpy(), labels=labels.numpy(), classes=("Spot",), source="toy"
    )


def toy_loader() -> Loader:
    store = toy_store()
    rows = torch.arange(len(store))
    return Loader(store, balanced(rows[0::2], rows[1::2]), AUGMENTATION)


class ToyGAN:
    """A critic with penalty, a generator with dropout if wanted: two critic phases, then one of
    the generator.
    """

    n_uniforms = 4

    def __init__(self, dropout: float = 0.0, device: str = "cpu", learning_rate: float = 1e-2):
        with seeded("toy"):
            self.networks: dict[str, nn.Module] = {
                "generator": nn.Sequential(
                    nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Dropout(dropout),
                    nn.Conv2d(4, 1, 3, padding=1), nn.Tanh(),
                ),
                "critic": nn.Sequential(
                    nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(64, 1)
                ),
            }  # fmt: skip
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for name, network in self.networks.items():
            network.to(device)
            self.optimizers[name] = torch.optim.Adam(network.parameters(), learning_rate)
        self.seen: list[tuple[int, int]] = []

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        self.seen.append((step, epoch))
        yield Phase("D", ("critic",), self.critic_loss)
        yield Phase("D", ("critic",), self.critic_loss)
        yield Phase("G", ("generator",), self.generator_loss)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        G, D = self.networks["generator"], self.networks["critic"]
        real, abnormal = batch.image[0::2], batch.image[1::2]
        with torch.no_grad():
            fake = G(abnormal)
        assert batch.uniforms is not None
        penalty = gradient_penalty(D, real, fake, batch.uniforms[0::2, 0])
        distance = wasserstein_critic_loss(D(real), D(fake))
        return distance + 10 * penalty, {"penalty": penalty}

    def generator_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        G, D = self.networks["generator"], self.networks["critic"]
        abnormal = batch.image[1::2]
        fake = G(abnormal)
        kept = (fake - abnormal).abs().mean()
        return wasserstein_generator_loss(D(fake)) + kept, {"kept": kept}


def weights(task: Task) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, network in task.networks.items()
        for key, value in network.state_dict().items()
    }


def run(task: Task, steps: int = 6, **settings: Any) -> list[Report]:
    """Trains on the toy feed, in batches of 8 with a report after every second step."""
    return train(task, toy_loader(), steps=steps, **{"batch_size": 8, "report_every": 2} | settings)


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Asserts that two states are equal bit for bit."""
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


if __name__ == "__main__":
    folder, resume = Path(sys.argv[1]), "resume" in sys.argv
    torch.set_num_threads(1)
    with init_distributed("cpu") as (ranks, device):
        # ranks that begin apart: the engine has to make them alike
        task = ToyGAN()
        with torch.no_grad():
            for network in task.networks.values():
                for parameter in network.parameters():
                    parameter.add_(ranks.rank)
        reports = train(
            task, toy_loader(), steps=int(sys.argv[2]), batch_size=8, device=device, ranks=ranks,
            checkpoint_dir=folder / "run", checkpoint_every=5, report_every=2, resume=resume,
        )  # fmt: skip
        told = {f"{r.step} {k}": v for r in reports for k, v in r.terms.items()}
        torch.save({"weights": weights(task), "told": told}, folder / f"rank{ranks.rank}.pt")
