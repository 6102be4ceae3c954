"""Policies and values that are handed in: their shapes, and the tasks that they mean."""

import numpy as np
from numpy.typing import ArrayLike

from metarl_envs.core import FloatArray
from metarl_envs.tabular.mdp.model import MDP, check_distribution


def check_policy(mdp: MDP, policy: ArrayLike) -> FloatArray:
    """The policy with the batch axes of the MDP, (..., S, A) or with a horizon (..., H, S, A).

    :param mdp: the MDP(s)
    :param policy: as in `policy_values`
    """
    array = np.asarray(policy, dtype=np.float64)
    core: tuple[int, ...] = (mdp.n_states, mdp.n_actions)
    if array.shape[-2:] != core:
        raise ValueError(f"policy has shape {array.shape}, but must end in (S, A) = {core}")
    check_distribution("policy", array)
    shape = array.shape
    if mdp.horizon is not None:
        if not _is_staged(mdp, array.shape[:-2]):
            array = array[..., None, :, :]
        core = (mdp.horizon, *core)
        if array.shape[-3] not in (1, mdp.horizon):
            raise ValueError(
                f"policy has shape {shape}, but must end in (H, S, A) = {core}, or in "
                "(1, S, A) to be the same at every stage"
            )
    batch = _joint_batch(mdp, "policy", shape, array.shape[: -len(core)])
    return np.broadcast_to(array, (*batch, *core))


def check_values(mdp: MDP, values: ArrayLike) -> FloatArray:
    """The values with the batch axes of the MDP, (..., S) or with a horizon (..., H, S).

    :param mdp: the MDP(s)
    :param values: as in `action_values`
    """
    array = np.asarray(values, dtype=np.float64)
    core = (mdp.n_states,) if mdp.horizon is None else (mdp.horizon, mdp.n_states)
    if array.shape[-len(core) :] != core:
        letters = "(S,)" if mdp.horizon is None else "(H, S)"
        raise ValueError(f"values has shape {array.shape}, but must end in {letters} = {core}")
    batch = _joint_batch(mdp, "values", array.shape, array.shape[: -len(core)])
    return np.broadcast_to(array, (*batch, *core))


def _is_staged(mdp: MDP, leading: tuple[int, ...]) -> bool:
    """Whether the last leading axis of a policy is the stage: it has more of them than the MDP."""
    n_axes = len(mdp.batch_shape)
    if len(leading) > n_axes:
        return True
    if leading and leading[-1] == mdp.horizon and set(leading) != {1}:
        shape = (*leading, mdp.n_states, mdp.n_actions)
        raise ValueError(
            f"policy of shape {shape} is ambiguous for MDPs with batch axes {mdp.batch_shape} and "
            f"horizon {mdp.horizon}: write policy[None] (1,H,S,A) for a staged policy shared by "
            "all tasks, or (M,1,S,A), policy[:, None], for one stationary policy per task"
        )
    return False


def _joint_batch(
    mdp: MDP, name: str, shape: tuple[int, ...], leading: tuple[int, ...]
) -> tuple[int, ...]:
    """Batch axes of the MDP and the leading axes of an array, together."""
    try:
        return np.broadcast_shapes(mdp.batch_shape, leading)
    except ValueError as error:
        raise ValueError(
            f"{name} of shape {shape} does not fit MDPs with batch axes {mdp.batch_shape} "
            f"(rewards {mdp.rewards.shape}): give one per MDP, or axes of length 1"
        ) from error
