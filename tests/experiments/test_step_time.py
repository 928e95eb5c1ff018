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
    *_, biomarker = training_steps(CPU)
    biomarker.run()
    n = SMOKE.batch_size
    assert ran == [("D", n)] * SMOKE.critic_steps + [("GC", n), ("G", n)]
    assert biomarker.images == n and biomarker.parameters > 900_000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_papers_sizes_are_timed_too_eager_and_captured():
    names = [step.name for step in training_steps(torch.device("cuda"))]
    assert [name for name in names if "paper" in name] == [
        "Biomarker paper, 128 px", "Biomarker paper, 128 px, captured"
    ]  # fmt: skip
