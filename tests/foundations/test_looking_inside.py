"""A classifier trained on phantoms, and the measures that unmask its shortcut."""

import pytest
import torch

from cxrtut.data.phantom import CLASSES, Confounder, PhantomSample
from cxrtut.foundations import looking_inside
from cxrtut.nn.backbones import ResNet10
from cxrtut.randomness import seeded

SMALL = looking_inside.Training(images=60, steps=3, batch_size=8, warm_up=1, width=4)
QUICK = looking_inside.Training(images=240, steps=80, batch_size=16, warm_up=10, width=8)


class Fixed(torch.nn.Module):
    """Logits that are told: 0 for normal, the image's first pixel for abnormal."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        z = image.flatten(1)[:, :1]
        return torch.cat([torch.zeros_like(z), z], 1)


def network(seed: int = 0) -> ResNet10:
    with seeded("test", seed):
        return ResNet10(width=4)


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_collections_of_one_seed_differ_in_the_word_only():
    index = torch.arange(24)
    with_word = looking_inside.collection(looking_inside.SHORTCUT).sample(index)
    reverse = looking_inside.collection(looking_inside.REVERSED).sample(index)
    assert torch.equal(with_word.label_vector, reverse.label_vector)
    assert torch.equal(with_word.region, reverse.region)
    changed = (with_word.image != reverse.image).flatten(1).any(1)
    assert torch.equal(changed, with_word.tag != reverse.tag) and changed.any()
    row, column = (with_word.image != reverse.image).any(0)[0].nonzero().T
    edge = round(64 * looking_inside.CORNER)
    assert int(column.max()) < edge and int(row.min()) >= 64 - edge, "the word is in the corner"


def test_a_collection_has_one_disease_and_as_many_healthy_images():
    labels = looking_inside.collection(seed=3).labels(torch.arange(2000))
    column = CLASSES.index("Pneumonia")
    assert labels.sum(0)[torch.arange(len(CLASSES)) != column].sum() == 0
    assert 0.45 < float(labels[:, column].mean()) < 0.55


def test_the_severity_replaces_that_of_the_preset():
    assert looking_inside.collection(severity=0.7).preset.severity == 0.7
    assert looking_inside.collection().preset.severity == 2.2


@pytest.mark.parametrize("images", [2, 60, 64, 69])
def test_other_patients_were_not_in_training(images):
    training = looking_inside.Training(images=images)
    phantom = looking_inside.collection()
    seen = phantom.identities(torch.arange(images))[0]
    others = phantom.identities(looking_inside.other_patients(50, training))[0]
    assert len(others) == 50
    assert not set(seen.tolist()) & set(others.tolist())


def test_training_depends_on_the_seed_and_on_nothing_else():
    phantom = looking_inside.collection(size=32)
    torch.manual_seed(5)
    first = looking_inside.trained_on(phantom, SMALL, seed=1)
    torch.manual_seed(6)
    again, other = (looking_inside.trained_on(phantom, SMALL, seed=s) for s in (1, 2))
    parameters = [list(net.parameters()) for net in (first, again, other)]
    assert all(torch.equal(p, q) for p, q in zip(parameters[0], parameters[1], strict=True))
    assert not torch.equal(parameters[0][0], parameters[2][0])
    assert not first.training


def test_reports_reach_the_callback():
    steps = []
    phantom = looking_inside.collection(size=32)
    looking_inside.trained_on(phantom, SMALL, callbacks=[lambda report: steps.append(report.step)])
    assert steps == [3]


@pytest.fixture(scope="module")
def misled_and_seen() -> tuple[ResNet10, dict[str, PhantomSample]]:
    """A classifier of images in which the word always tells and the disease is invisible."""
    rules = {"tells": (1.0, 0.0), "says nothing": (0.5, 0.5), "lies": (0.0, 1.0)}
    rooms = {
        name: looking_inside.collection(
            Confounder(disease="Pneumonia", with_disease=p, without=q), severity=0.05
        )
        for name, (p, q) in rules.items()
    }
    classifier = looking_inside.trained_on(rooms["tells"], QUICK)
    others = looking_inside.other_patients(120, QUICK)
    return classifier, {name: room.sample(others) for name, room in rooms.items()}


def test_a_classifier_learns_the_word_where_there_is_nothing_else(misled_and_seen):
    classifier, seen = misled_and_seen
    area = looking_inside.areas(classifier, seen)
    assert area["tells"] > 0.95 and area["lies"] < 0.05
    assert 0.35 < area["says nothing"] < 0.65


def test_healthy_twins_with_the_word_are_called_ill_and_those_without_are_not(misled_and_seen):
    classifier, seen = misled_and_seen
    sample = seen["says nothing"]
    twins = [sample.healthy[sample.label_vector.any(1) & (sample.tag == tag)] for tag in (1, 0)]
    with_word, without = (looking_inside.called_abnormal(classifier, part) for part in twins)
    assert with_word > 0.6 > 0.3 > without


def test_the_mean_of_the_evidence_and_the_biases_are_the_log_odds():
    classifier, images = network().eval(), numbers(3, 1, 32, 32)
    evidence = looking_inside.evidence_map(classifier, images)
    assert evidence.shape == (3, 4, 4) and not evidence.requires_grad
    bias = classifier.classifier.bias
    z = evidence.mean((1, 2)) + bias[1] - bias[0]
    assert torch.allclose(z, looking_inside.log_odds(classifier, images), atol=1e-5)


def test_evidence_is_taken_in_evaluation_mode_and_the_mode_is_put_back():
    classifier, images = network().train(), numbers(3, 1, 32, 32)
    before = classifier.features.block1.norms[0].running_mean.clone()
    evidence = looking_inside.evidence_map(classifier, images)
    assert classifier.training
    assert torch.equal(classifier.features.block1.norms[0].running_mean, before)
    assert torch.equal(evidence, looking_inside.evidence_map(classifier.eval(), images))


def test_log_odds_are_those_of_the_softmax():
    images = numbers(4, 1, 2, 2)
    z = looking_inside.log_odds(Fixed(), images)
    p = Fixed()(images).softmax(1)[:, 1]
    assert torch.allclose(z, torch.log(p / (1 - p)), atol=1e-5)


def test_the_corner_is_the_lower_left_nine_of_sixty_four_cells():
    evidence = torch.zeros(3, 8, 8)
    evidence[0, 5:, :3] = 2.0
    evidence[1, :5] = 1.0
    evidence[2] = 0.5
    share = looking_inside.share_in_corner(evidence)
    assert share.tolist() == [1.0, 0.0, 9 / 64]


def test_evidence_against_the_disease_does_not_count():
    evidence = torch.zeros(1, 8, 8)
    evidence[0, 7, 0], evidence[0, 0, 7], evidence[0, 7, 1], evidence[0, 1, 7] = 1, 3, -9, -9
    assert looking_inside.share_in_corner(evidence).tolist() == [0.25]


def test_a_map_without_evidence_for_the_disease_has_no_share():
    assert looking_inside.share_in_corner(torch.full((1, 8, 8), -1.0)).isnan().all()


def test_a_finer_map_has_the_same_corner():
    coarse = numbers(2, 8, 8)
    fine = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.allclose(
        looking_inside.share_in_corner(fine), looking_inside.share_in_corner(coarse)
    )


@pytest.mark.parametrize("shape", [(1, 4, 8), (1, 8, 12), (1, 0, 8)])
def test_a_map_on_which_the_corner_has_no_edge_is_an_error(shape):
    with pytest.raises(ValueError, match=f"multiple of 8, got {shape[1]} x {shape[2]}"):
        looking_inside.share_in_corner(torch.zeros(shape))


def test_called_abnormal_is_the_share_above_zero():
    images = torch.tensor([0.4, -0.2, 0.0, 0.9]).view(4, 1, 1, 1)
    assert looking_inside.called_abnormal(Fixed(), images) == 0.5
