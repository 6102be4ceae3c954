"""Two ways to adapt within a forward KL divergence: the root that solves it, and 20 steps of SGD.

Shapes: `...` any leading axes (tasks, states), A actions.
"""

import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.bilevel.exact import centred

_N_ROOT_STEPS = 15
_N_HALVINGS = 64
_EPS = th.finfo(th.float64).eps


def log_root(
    log_prior: Float[Tensor, "*batch action"], log_gap: Float[Tensor, "*batch action"]
) -> Float[Tensor, "*batch 1"]:
    """log x for the root x in (0, 1] of `sum_a p(a) / (x + g(a)) = 1`, (..., 1).

    The weighted harmonic mean `h(x) = 1 / sum_a p(a) / (x + g(a))` is increasing and concave, so
    Newton on `h(x) = 1`, from the left end of the bracket `max_a (p(a) - g(a)) <= x <= 1`, rises to
    the root and never passes it (but by rounding, which is cut off). All is kept in logarithms:
    probabilities that underflow still count. Our derivation.

    :param log_prior: log p, (..., A), finite
    :param log_gap: log g with g >= 0 and some g(a) = 0, (..., A)
    """
    is_above = log_prior > log_gap
    share = th.where(is_above, log_gap - log_prior, -th.inf).exp()
    ends = th.where(is_above, log_prior + th.log1p(-share), -th.inf)
    root, has_converged = _risen(ends.amax(-1, keepdim=True), log_prior, log_gap)
    if has_converged:
        return root
    # Where two scales meet, Newton may only double x at each step: halve the bracket instead.
    high = th.zeros_like(root)
    for _ in range(_N_HALVINGS):
        middle = (root + high) / 2.0
        is_left = (log_prior - th.logaddexp(middle, log_gap)).logsumexp(-1, keepdim=True) > 0.0
        root, high = th.where(is_left, middle, root), th.where(is_left, high, middle)
    return _risen(root, log_prior, log_gap)[0]


def _risen(root: Tensor, log_prior: Tensor, log_gap: Tensor) -> tuple[Tensor, bool]:
    """A few steps of Newton from the left, and whether the root is reached to rounding."""
    tolerance = 8.0 * _EPS * (1.0 + log_prior.abs().amax(-1, keepdim=True))
    for _ in range(_N_ROOT_STEPS):
        log_terms = th.logaddexp(root, log_gap)
        log_sum = (log_prior - log_terms).logsumexp(-1, keepdim=True).clamp(min=0.0)
        if bool((log_sum <= tolerance).all()):
            return root, True
        log_square = (log_prior - 2.0 * log_terms).logsumexp(-1, keepdim=True)
        step = log_sum + th.expm1(log_sum).log() - log_square
        root = th.logaddexp(root, step).clamp(max=0.0)
    return root, False


def sgd20_logits(
    logits: Float[Tensor, "*batch action"],
    scaled_q: Float[Tensor, "*batch action"],
    *,
    n_steps: int = 20,
    step_size: float = 0.6,
    clip: float = 1e-4,
) -> Float[Tensor, "*batch action"]:
    """What gradient descent makes of the `forward_kl` problem, (..., A), far from its solution.

    The defaults are those of publicly available experiment scripts: 20 plain steps of 0.6 on the
    logits of each state, with probabilities clipped from below at 1e-4 inside the KL.

    :param logits: phi, (..., A)
    :param scaled_q: Q / lambda, (..., A)
    :param n_steps: how many steps
    :param step_size: of each step on `- <A, pi> / lambda + KL`
    :param clip: smallest probability inside the KL
    """
    theta = logits
    prior = logits.softmax(-1).clamp(min=clip)
    for _ in range(n_steps):
        p = theta.softmax(-1)
        weights = prior * (p > clip)  # a clipped probability has no slope
        pull = p * weights.sum(-1, keepdim=True) - weights
        theta = theta - step_size * (pull - centred(p, scaled_q))
    return theta
