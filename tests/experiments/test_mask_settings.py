"""What the configuration and the seed of a run say reaches the stages of the disease-masks paper.

Nothing is trained here: the trainer keeps what it was given, and moves all weights a little.
"""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from cxrtut.experiments.disease_masks import ARMS, split_of
from cxrtut.experiments.mask_stages import stages_of
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.papers.disease_masks import SMOKE, make_aligner, make_classifier

pytestmark = pytest.mark.filterwarnings("ignore:.* maps of P >= :UserWarning")  # so few images
TINY = replace(
    SMOKE, size=32, grid_size=8, classifier_width=4, epochs=3.0, alignment_epochs=2.0,
    batch_size=16, alignment_batch_size=8, anchor_images=5, learning_rate=2e-3,
    alignment_learning_rate=0.03, momentum=0.7,
)  # fmt: skip
CLASSIFIERS = ("plain, BCE", "Wang", "Cai", "Liu", "Li (boxes)", "supervised (boxes)", "aligned")


@pytest.fixture(scope="module")
def split():
    return split_of(Source(images=120), TINY, 0)


class Kept:
    """A run of some arms: what each stage was given, by its name."""

    def __init__(self, split, *arms, seed=0, config=TINY):
        self.began, self.optimizers, self.loaders, self.how = {}, {}, {}, {}
        self.run = Run(seed=seed, trainer=self.trainer)
        self.stages = stages_of(config, split, self.run)
        self.systems = {arm: ARMS[arm].train(config, split, self.run) for arm in arms}

    def trainer(self, task, loader, **how):
        stage = how["configuration"]["stage"]
        self.began[stage] = deepcopy({k: n.state_dict() for k, n in task.networks.items()})
        self.optimizers[stage] = {k: o.param_groups[0] for k, o in task.optimizers.items()}
        self.loaders[stage], self.how[stage] = loader, how
        with torch.no_grad():
            for name in task.optimizers:
                for weight in task.networks[name].parameters():
                    weight.add_(0.01)
        return []


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_stages_last_their_epochs_of_the_training_images(split):
    kept, n = Kept(split, "aligned", "plain, BCE"), len(split.train)
    assert n < len(split.store)
    lengths = {stage: (how["steps"], how["batch_size"]) for stage, how in kept.how.items()}
    classifier = (3 * (n // 16), 16)
    assert lengths == {
        "plain": classifier, "aligner": (2 * (n // 8), 8), "aligned": classifier,
        "plain, BCE": classifier,
    }  # fmt: skip


def test_all_classifiers_learn_at_one_rate_and_the_aligner_at_its_own(split):
    rates = Kept(split, *CLASSIFIERS).optimizers
    aligner = rates.pop("aligner")["aligner"]
    assert (aligner["lr"], aligner["momentum"]) == (0.03, 0.7)
    assert len(rates) == 1 + len(CLASSIFIERS)
    for stage, groups in rates.items():
        assert {name: group["lr"] for name, group in groups.items()} == {"classifier": 2e-3}, stage
        assert groups["classifier"]["weight_decay"] == 0, stage  # "BCE" has another loss, no more


@pytest.mark.parametrize("seed", [0, 1])
def test_networks_begin_with_the_weights_of_their_seed(split, seed):
    began = Kept(split, "aligned", "Wang", seed=seed).began
    classifier = make_classifier(TINY, len(split.classes), seed).state_dict()
    for stage in ("plain", "aligned", "Wang"):  # also the one that follows another
        assert same(began[stage]["classifier"], classifier), stage
    assert same(began["aligner"]["aligner"], make_aligner(TINY, seed).state_dict())


def test_normal_images_and_known_boxes_are_others_with_another_seed(split):
    one, other = (Kept(split, "Li (boxes)", seed=seed) for seed in (0, 1))
    assert not torch.equal(one.stages.anchor, other.stages.anchor)
    known, others = (kept.loaders["Li"].source.store.boxes.row for kept in (one, other))
    assert known.tolist() != others.tolist()


def test_the_threshold_of_masks_is_that_of_the_configuration(split):
    stages = Kept(split, config=replace(TINY, mask_threshold=0.9)).stages
    masks, _ = stages.masks(stages.plain, aligned=False)
    assert masks.any() and masks[masks > 0].min() >= 0.9
