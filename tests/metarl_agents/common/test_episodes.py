import pytest
import torch as th

from metarl_agents.common.episodes import EpisodeBatch


def batch(lengths: list[int], n_steps: int, offset: float = 0.0, masks: bool = False):
    n = len(lengths)
    mask = th.zeros(n, n_steps)
    for row, length in zip(mask, lengths, strict=True):
        row[:length] = 1.0
    rewards = (th.arange(n * n_steps).reshape(n, n_steps) + offset) * mask
    return EpisodeBatch(
        observations=mask[..., None].repeat(1, 1, 2),
        actions=th.ones(n, n_steps, 1, dtype=th.int64),
        rewards=rewards,
        mask=mask,
        dist_params=th.zeros(n, n_steps, 0),
        final_observations=th.ones(n, 2),
        terminated=th.zeros(n),
        action_masks=th.ones(n, n_steps, 3, dtype=th.bool) if masks else None,
    )


def test_returns_and_lengths_ignore_padding():
    episodes = batch([2, 3], 4)
    assert episodes.returns.tolist() == [0 + 1, 4 + 5 + 6]
    assert episodes.lengths.tolist() == [2, 3]
    assert episodes.n_steps == 5


def test_counts_are_those_of_the_axes():
    stacked = EpisodeBatch.stack([batch([2, 3], 4), batch([1, 1], 4)])
    assert (stacked.n_tasks, stacked.n_episodes, stacked.has_task_axis) == (2, 2, True)
    assert (batch([2], 4).n_tasks, batch([2], 4).has_task_axis) == (1, False)


def test_stack_pads_to_the_longest_and_task_takes_it_apart():
    first, second = batch([2, 3], 3, masks=True), batch([5, 1], 5, offset=1.0, masks=True)
    stacked = EpisodeBatch.stack([first, second])
    assert stacked.mask.shape == (2, 2, 5)
    assert stacked.returns.tolist() == [first.returns.tolist(), second.returns.tolist()]
    assert not stacked.action_masks[0, :, 3:].any()
    for field, original in zip(stacked.task(1), second, strict=True):
        assert th.equal(field, original)
    assert [task.n_steps for task in stacked.tasks()] == [5, 6]


def test_concatenate_joins_episodes_with_and_without_task_axis():
    first, second = batch([2], 2), batch([3, 1], 3)
    joined = EpisodeBatch.concatenate([first, second])
    assert joined.lengths.tolist() == [2, 3, 1]
    with_axis = EpisodeBatch.concatenate(
        [EpisodeBatch.stack([first]), EpisodeBatch.stack([second])]
    )
    assert with_axis.lengths.tolist() == [[2, 3, 1]]


def test_episodes_selects_by_slice_and_by_position():
    stacked = EpisodeBatch.stack([batch([1, 2, 3], 3), batch([3, 2, 1], 3)])
    assert stacked.episodes(slice(1, None)).lengths.tolist() == [[2, 3], [2, 1]]
    assert stacked.episodes([2, 0]).lengths.tolist() == [[3, 1], [1, 3]]
    assert batch([1, 2], 2).episodes([1]).lengths.tolist() == [2]


def test_to_changes_floating_point_fields_only():
    moved = batch([2], 2, masks=True).to(dtype=th.float64)
    assert moved.rewards.dtype == moved.mask.dtype == th.float64
    assert (moved.actions.dtype, moved.action_masks.dtype) == (th.int64, th.bool)


def test_vmap_runs_over_the_task_axis():
    stacked = EpisodeBatch.stack([batch([1, 2], 3, masks=True), batch([3, 3], 3, masks=True)])
    returns = th.func.vmap(lambda episodes: (episodes.rewards * episodes.mask).sum(-1))(stacked)
    assert th.equal(returns, stacked.returns)


@pytest.mark.parametrize(
    "call",
    [
        lambda: EpisodeBatch.stack([]),
        lambda: EpisodeBatch.concatenate([]),
        lambda: EpisodeBatch.stack([batch([1], 2), batch([1, 1], 2)]),
        lambda: EpisodeBatch.stack([EpisodeBatch.stack([batch([1], 2)])]),
        lambda: EpisodeBatch.stack([batch([1], 2, masks=True), batch([1], 2)]),
        lambda: EpisodeBatch.concatenate([batch([1], 2), EpisodeBatch.stack([batch([1], 2)])]),
        lambda: batch([1], 2).task(0),
    ],
)
def test_batches_that_do_not_fit_are_refused(call):
    with pytest.raises(ValueError, match=" "):
        call()
