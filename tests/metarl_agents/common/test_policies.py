import numpy as np
import pytest

from metarl_agents.common.policies import PolicyList, TaskPolicies, stack_policies


class Constant:
    """Always the same action; its state counts the steps."""

    def __init__(self, action, stateful=False):
        self.action, self.stateful = action, stateful

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        restart = state is None or bool(episode_start[0])
        count = 0 if restart else state[0]
        return np.full(len(observation), self.action), (count + 1,) if self.stateful else None


class Stackable(Constant):
    @classmethod
    def stack(cls, policies):
        return ("stacked", [policy.action for policy in policies])


class Telling(Constant):
    def action_probabilities(self, observations, stage=None, deterministic=False):
        return np.full((len(observations), 2), self.action)


def test_policy_list_asks_each_policy_for_its_row():
    policies = PolicyList([Constant(3), Constant(5)])
    actions, state = policies.predict(np.zeros((2, 4)))
    assert actions.tolist() == [3, 5]
    assert state is None
    assert (policies.n_tasks, len(policies), policies[1].action) == (2, 2, 5)
    assert isinstance(policies, TaskPolicies)


def test_policy_list_keeps_states_apart_and_restarts_them_by_row():
    policies = PolicyList([Constant(0, stateful=True), Constant(0, stateful=True)])
    observations, start = np.zeros((2, 1)), np.array([True, True])
    _, state = policies.predict(observations, None, start)
    _, state = policies.predict(observations, state, np.array([False, True]))
    assert state == [(2,), (1,)]


def test_action_probabilities_exist_only_where_every_policy_tells_them():
    telling = PolicyList([Telling(0.25), Telling(0.5)])
    assert telling.action_probabilities(np.zeros((3, 1))).shape == (2, 3, 2)
    assert not hasattr(PolicyList([Telling(0.5), Constant(1)]), "action_probabilities")


def test_stack_policies_prefers_the_class_own_stack():
    assert stack_policies([Stackable(1), Stackable(2)]) == ("stacked", [1, 2])
    assert isinstance(stack_policies([Stackable(1), Constant(2)]), PolicyList)


def test_wrong_numbers_of_policies_are_refused():
    with pytest.raises(ValueError, match="empty"):
        stack_policies([])
    with pytest.raises(ValueError, match="empty"):
        PolicyList([])
    with pytest.raises(ValueError, match="2 rows for 1 policies"):
        PolicyList([Constant(0)]).predict(np.zeros((2, 1)))
