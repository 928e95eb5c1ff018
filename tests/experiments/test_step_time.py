"""The steps that the bench times are whole training steps."""

import pytest
import torch

from cxrtut.experiments.step_time import training_steps
from cxrtut.papers.biomarker import SMOKE

CPU = torch.device("cpu")


def test_a_timed_step_of_the_biomarker_method_runs_every_phase(monkeypatch):
    ran = []
    from cxrtut.experiments import step_time

    class Spy(step_time.PhaseStep):
        def run(self, phase, batch):
            ran.append((phase.name, len(batch)))
            super().run(phase, batch)

    monkeypatch.setattr(step_time, "PhaseStep", Spy)
    (biomarker,) = (s for s in training_steps(CPU) if s.name.startswith("Biomarker"))
    biomarker.run()
    n = SMOKE.batch_size
    assert ran == [("D", n)] * SMOKE.critic_steps + [("GC", n), ("G", n)]
    assert biomarker.images == n and biomarker.parameters > 900_000


def test_both_steps_of_the_disease_masks_are_timed():
    steps = {s.name: s for s in training_steps(CPU) if s.name.startswith("Disease masks")}
    assert list(steps) == [
        f"Disease masks smoke, {k}, 64 px" for k in ("alignment", "classification")
    ]
    alignment, classification = steps.values()
    assert (alignment.images, classification.images) == (16, 32)
    assert classification.parameters == 308_072  # the masks are no parameters
    alignment.run()
    classification.run()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_papers_sizes_are_timed_too_eager_and_captured():
    names = [step.name for step in training_steps(torch.device("cuda"))]
    assert [name for name in names if "paper" in name] == [
        f"{step}{end}"
        for end in ("", ", captured")
        for step in (
            "Biomarker paper, 128 px", "Disease masks paper, alignment, 512 px",
            "Disease masks paper, classification, 512 px",
        )
    ]  # fmt: skip
