"""The arms of GRANet: what each learns from, how long, and in which frame."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from cxrtut.baselines.aligned import Aligned
from cxrtut.baselines.dgm import DisentangledInput
from cxrtut.data.annotated import boxed, with_all_boxes
from cxrtut.data.store import StoreError
from cxrtut.experiments.aligned_split import aligned_training
from cxrtut.experiments.granet import COMPARISON, ROWS, TURNS, split_of
from cxrtut.experiments.granet_detectors import FIRST, make_detector
from cxrtut.experiments.granet_stages import DETECTORS, Stages, stages_of
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.nn.residual_attention import AttendedBackbone
from cxrtut.nn.spatial_transformer import five_parameter_matrix
from cxrtut.papers.granet import COLAB, CPU, PAPER, SMOKE

TINY = replace(
    SMOKE, size=32, base=4, residual_blocks=1, batch_size=4, features_width=4, features_steps=1,
    alignment_steps=1, realistic_steps=1, steps=1, detector_steps=6, annotated=20, healthy=24,
)  # fmt: skip


@pytest.fixture(scope="module")
def split():
    return split_of(Source(images=160), TINY, 0)


class Kept:
    """A run that trains nothing and keeps what each stage was given."""

    def __init__(self, split, *arms, config=TINY):
        self.stages, self.arm, self.system = [], {}, {}
        self.run = Run(seed=0, trainer=self.trainer)
        for name in arms:
            before = len(self.stages)
            self.system[name] = COMPARISON.arm(name).train(config, split, self.run)
            self.arm[name] = self.stages[before:]

    def trainer(self, task, loader, **how):
        self.stages.append((how["configuration"]["stage"], task, loader, how))
        return []


def test_detectors_of_one_kind_begin_alike_and_move_on_as_many_batches(split):
    names = ["RetinaNet-dagger", "+ align", "+ align, attn.", "joint", "1:3", "5:1"]
    kept = Kept(split, *names)
    first = None
    for name in names:
        stage, task, loader, how = kept.arm[name][-1]
        assert stage == "main" and loader.augmentation == DETECTORS
        state = task.networks["detector"].state_dict()
        weights = {k.replace("backbone.backbone.", "backbone."): v for k, v in state.items()}
        first = first or weights
        assert all(torch.equal(v, first[k]) for k, v in weights.items())
        per_epoch = loader.steps_per_epoch(TINY.detector_batch_size)
        moved = sum(
            phase.name == "detector"
            for step in range(how["steps"])
            for phase in task.phases(step, step // per_epoch)
        )
        n, m = TURNS.get(name, (2, 2))
        by_turns = name in TURNS or name == "+ align, attn."
        steps = TINY.detector_steps
        assert how["steps"] == (steps * (n + m) // n if by_turns else steps)
        assert abs(moved - steps) <= n * per_epoch  # the last turn may be cut off
        assert by_turns or moved == steps


def test_stages_are_trained_once_for_all_arms_that_begin_with_them(split):
    kept = Kept(split, "+ align", "+ align, attn.", "+ align, attn., syn.", "1:1")
    names = [stage for stage, *_ in kept.stages]
    for stage in ("features", "aligner", "realistic", "abnormal to normal", "realistic abnormal"):
        assert names.count(stage) == 1, stage
    assert names.count("main") == 4
    one, other = (kept.arm[n][-1][1] for n in ("+ align, attn.", "1:1"))
    assert one.networks["generator"] is not other.networks["generator"]


def test_only_the_rows_that_are_to_be_learnt_from_are(split):
    stages = stages_of(TINY, split, Run(seed=0, trainer=lambda *a, **k: []))
    chosen = stages.split.train
    assert set(chosen) <= set(split.train) and len(chosen) == 20 + 24
    assert len(boxed(stages.split)) == 20 and len(stages.split.normal()) == 24
    pairs = stages.pairs(aligned=False)
    assert set(pairs.index.tolist()) == set(chosen.tolist())
    tested = set(split.test.tolist()) | set(split.validation.tolist())
    assert not tested & set(pairs.index.tolist())


def test_synthetic_images_have_the_boxes_of_others_and_add_as_many_as_oversampling(split):
    kept = Kept(split, "+ align", "+ align, syn.", "+ align, oversampled", "+ align, attn., syn.")
    plain, more, again, both = (kept.arm[n][-1][2].source for n in kept.arm)
    assert len(more) == len(again) == len(plain) + 24 and len(both) == len(more)
    assert (more.label_vector[len(plain) :] == 1).all()
    assert (more.box_label[len(plain) :] >= 0).any(1).all()
    assert both.healthy is not None and more.healthy is None


def test_a_generator_that_is_not_trained_with_the_detector_stays_as_it_is(split):
    kept = Kept(split, "attn. of an untrained G", "RetinaNet + DGM")
    for name, kind in (
        ("attn. of an untrained G", AttendedBackbone), ("RetinaNet + DGM", DisentangledInput),
    ):  # fmt: skip
        _, task, _, _ = kept.arm[name][-1]
        system = kept.system[name]
        inner = system.system if isinstance(system, Aligned) else system
        assert isinstance(task.networks["detector"].backbone, kind)
        assert not any(p.requires_grad for p in inner.networks["generator"].parameters())
        assert set(task.networks) == {"detector"}


def test_turns_and_ablations_change_what_they_say():
    configs = {name: row.change(TINY) for name, row in ROWS.items()}
    assert configs["joint"].joint and not configs["+ align, attn."].joint
    for name, (n, m) in TURNS.items():
        assert (configs[name].detector_epochs, configs[name].generator_epochs) == (n, m)
    assert configs["attn., F * A"].attention == "product"
    assert configs["attn., G deaf to the detector"].lambda_detection == 0
    own = configs["+ align, attn."]
    assert (own.detector_epochs, own.generator_epochs, own.lambda_detection) == (2, 2, 1.0)
    assert {row.detector for row in ROWS.values()} == set(FIRST)


class Shift(nn.Module):
    """Looks a quarter of the image to the right: what is seen moves to the left."""

    def forward(self, image: Tensor) -> Tensor:
        one, zero = torch.ones(len(image)), torch.zeros(len(image))
        return five_parameter_matrix(one, one, zero + 0.5, zero, zero)


def test_the_aligned_training_images_have_their_boxes_where_their_lesions_went(split):
    made = aligned_training(split, Shift())
    assert len(made.train) == len(split.train) and not len(made.test)
    before = with_all_boxes(split, split.train)
    after = with_all_boxes(made, made.train)
    assert torch.equal(after.label_vector, before.label_vector)
    assert made.patients(made.train) == split.patients(split.train)
    assert (after.images[:, :, :, :24].int() - before.images[:, :, :, 8:].int()).abs().max() <= 1
    for i in range(len(before)):
        here = before.boxes[i][before.box_label[i] >= 0] - torch.tensor([8.0, 0, 8, 0])
        here = here.clamp(0, 32)
        left = here[(here[:, 2] - here[:, 0] >= 1) & (here[:, 3] - here[:, 1] >= 1)]
        torch.testing.assert_close(
            after.boxes[i][after.box_label[i] >= 0], left, atol=1e-3, rtol=1e-4
        )


def test_the_reference_is_a_normal_training_image(split):
    stages = Stages(TINY, split, Run(seed=0))
    images = split.batch(split.normal()).image
    assert any(torch.equal(stages.reference[0], image) for image in images)
    flat = images.flatten(1)
    far = torch.cdist(flat, flat).mean(1)
    mine = torch.cdist(stages.reference.flatten(1), flat).mean()
    assert mine.item() == pytest.approx(float(far.min()), rel=1e-4)


def test_no_attention_for_detectors_without_a_pyramid_and_no_pasted_biomarkers():
    for name in ("SSD", "YOLOv3", "PYolo"):
        with pytest.raises(ValueError, match="expected no generator"):
            make_detector(name, TINY, 1, 0, nn.Identity())
    with pytest.raises(StoreError, match="--data pasted: expected phantom or store"):
        split_of(Source(data="pasted"), TINY, 0)


def test_presets_are_smaller_and_shorter_and_small_ones_need_no_download():
    for preset in (COLAB, CPU, SMOKE):
        for name in ("lambda_l1", "lambda_identity", "neighbours", "attention", "detector_epochs"):
            assert getattr(preset, name) == getattr(PAPER, name)
        assert preset.detector == "small" and not preset.imagenet
        assert preset.detector_steps < PAPER.detector_steps
    assert PAPER.imagenet


def test_the_published_detectors_are_those_of_the_paper():
    paper = replace(PAPER, imagenet=False)
    network = make_detector("RetinaNet-dagger", paper, 1, 0)
    assert sum(p.numel() for p in network.parameters()) == 65_104_480 - 513  # two classes of images
    assert sum(p.numel() for p in make_detector("YOLOv3", paper, 1, 0).parameters()) == 61_523_158
