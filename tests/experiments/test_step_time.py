"""The steps that the bench times are whole training steps, of any registered comparison."""

from dataclasses import replace

import pytest
import torch

from cxrtut.experiments import step_time
from cxrtut.experiments.registered import COMPARISONS
from cxrtut.experiments.step_time import cycle_of, steps_of, training_steps
from cxrtut.papers.biomarker import PAPER, SMOKE, Biomarker

# Without training no map is sure
pytestmark = pytest.mark.filterwarnings("ignore:.* maps of P >= :UserWarning")
CPU = torch.device("cpu")


def test_a_timed_cycle_of_the_biomarker_method_runs_every_phase(monkeypatch):
    ran = []

    class Spy(step_time.PhaseStep):
        def run(self, phase, batch):
            ran.append((phase.name, len(batch)))
            super().run(phase, batch)

    monkeypatch.setattr(step_time, "PhaseStep", Spy)
    steps = {s.name: s for s in steps_of(COMPARISONS["biomarker"], "smoke", CPU)}
    main = steps["biomarker smoke, main, 64 px"]
    main.run()
    n, k = SMOKE.batch_size, SMOKE.critic_steps
    assert ran == [("D", n)] * k + [("GC", n), ("G", n)]
    assert (main.images, main.steps) == (n * k, k) and main.parameters > 900_000


def test_a_cycle_is_as_long_as_the_phases_take_to_begin_anew():
    task = Biomarker(replace(PAPER, base=4, critic_base=4, classifier_layers=10))
    assert cycle_of(task) == PAPER.critic_steps == 5

    class Never:
        networks, optimizers, n_uniforms = task.networks, task.optimizers, 1

        def phases(self, step, epoch):
            yield from task.phases(4 if step > 100 else 0, 0)

    with pytest.raises(ValueError, match="begin anew within 128 steps"):
        cycle_of(Never())


def test_every_stage_of_the_disease_masks_is_timed():
    steps = {s.name: s for s in steps_of(COMPARISONS["disease_masks"], "smoke", CPU)}
    stages = ("plain", "aligner", "aligned", "aligned + DM")
    assert list(steps) == [f"disease_masks smoke, {stage}, 64 px" for stage in stages]
    plain, aligner, *_ = steps.values()
    assert (aligner.images, plain.images) == (16, 32)
    assert plain.parameters == 308_072  # the masks are no parameters
    aligner.run()
    plain.run()


def test_the_own_arm_of_every_paper_is_timed():
    named = {step.name.partition(" ")[0] for step in training_steps(CPU)}
    assert named == set(COMPARISONS)


def test_the_systems_of_a_table_are_timed_at_the_sizes_of_publications(monkeypatch):
    narrow = {"size": 32, "base": 4, "discriminator_base": 4, "vagan_base": 4, "halvings": 4}
    chosen = COMPARISONS["pillet_gan"]
    small = {
        name: replace(c, **narrow, batch_size=4) for name, c in chosen.timed.configurations.items()
    }
    narrowed = replace(chosen, timed=replace(chosen.timed, configurations=small))
    monkeypatch.setattr(step_time, "COMPARISONS", {"pillet_gan": narrowed})
    steps = list(step_time.published_steps(CPU, 1))
    arms = ("PILLET-GAN", "StarGAN", "Fixed-Point GAN", "VA-GAN")
    assert [step.name for step in steps] == [f"{arm}, 128 px, batch 4" for arm in arms]
    # Five steps, the fifth also of the generator; VA-GAN's map step has a batch of its own
    assert [step.steps for step in steps] == [5, 5, 5, 6]
    assert [step.images for step in steps] == [20, 20, 20, 24]
    assert {(step.published_steps, step.threads) for step in steps} == {(100_000, 1)}
    for step in steps:
        step.run()
    assert len(list(step_time.published_steps(CPU, 2))) == 8
    assert list(step_time.published_steps(CPU, 0)) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_papers_sizes_are_timed_too_eager_and_as_cuda_graphs():
    names = [step.name for step in training_steps(torch.device("cuda"))]
    for paper, size in (("biomarker", 128), ("disease_masks", 512)):
        of_paper = [name for name in names if name.startswith(f"{paper} paper, ")]
        eager = [name for name in of_paper if name.endswith(f"{size} px")]
        assert of_paper == [*eager, *(f"{name}, CUDA graphs" for name in eager)]
