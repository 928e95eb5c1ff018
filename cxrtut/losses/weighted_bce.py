"""Weighted binary cross-entropy: labels that are mostly zeros, with both halves of equal weight."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def weighted_bce_loss(
    logits: Float[Tensor, "B K"], label_vector: Float[Tensor, "B K"], *, weights: str = "batch"
) -> Float[Tensor, ""]:
    r"""(w_P Σ_{y = 1} -log σ(z) + w_N Σ_{y = 0} -log(1 - σ(z))) / (|P| + |N|), with σ the sigmoid,
    w_P = (|P| + |N|) / |P| and w_N = (|P| + |N|) / |N|.

    That is the mean over the positives plus the mean over the negatives: 2 log 2 where the
    classifier knows nothing, whatever the batch, the number of classes and their prevalence.

    Nothing is read back from the device, so the step can be captured as a CUDA graph. Each rank
    counts its own share of the batch.

    Reading (loss, what is counted): Kim, Jung and Lee count "positive and negative samples in a
        batch". In a footnote a sample is an image; in the text rare classes weigh more. ChestX-ray8
        counts the ones and zeros of the batch's label matrix.
        Here: We count entries over all classes ("batch"). With "class", each class has its own
            counts and weights, and the losses are averaged over the classes.
        Why: Kim, Jung and Lee cite ChestX-ray8, and the sums run over labels, not over images.

    Reading (loss, sum or mean): Eq. (10) is a sum over all entries.
        Here: We divide by their number.
        Why: For batches of one shape this is a constant, which Adam hardly sees.

    Reading (loss, batches without positives): Without positives (or negatives) the weight is
        infinite and the sum empty.
        Here: That half is dropped.
        Why: The other half is still a loss, $\log 2$ at chance.

    Args:
        logits: before the sigmoid.
        label_vector: {0, 1}.
        weights: what |P| and |N| count, the entries of the whole "batch" or of each "class".

    Raises:
        ValueError: unknown `weights`, labels of another shape than the logits, or no logits.

    Source: Kim, Jung and Lee, Eq. (10); Wang et al. (ChestX-ray8), CVPR 2017, Eq. (1).
    """
    if weights not in ("batch", "class"):
        raise ValueError(f'weights: expected "batch" or "class", got {weights!r}')
    if logits.shape != label_vector.shape or logits.numel() == 0:
        raise ValueError(
            "expected logits and labels of one shape (B, K), at least one, got "
            f"{tuple(logits.shape)} and {tuple(label_vector.shape)}"
        )
    precision = torch.promote_types(logits.dtype, torch.float32)
    logits, positive = logits.to(precision), label_vector.to(precision)
    counted_over = (0, 1) if weights == "batch" else (0,)
    # -log σ(z) = softplus(-z), and 1 - σ(z) = σ(-z): no logarithm of a rounded zero
    positives = _mean_where(positive, F.softplus(-logits), counted_over)
    negatives = _mean_where(1.0 - positive, F.softplus(logits), counted_over)
    return (positives + negatives).mean()


def _mean_where(chosen: Tensor, values: Tensor, over: tuple[int, ...]) -> Tensor:
    """Mean of the values where `chosen` is 1; 0 where it is nowhere."""
    return (chosen * values).sum(over) / chosen.sum(over).clamp(min=1.0)
