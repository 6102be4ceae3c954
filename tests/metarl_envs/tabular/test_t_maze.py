from functools import cache

import gymnasium as gym
import numpy as np
import pytest

from metarl_envs.tabular import optimal_values
from metarl_envs.tabular.t_maze import TMazeEnv, TMazeFamily, TMazeTask

MOVES = [(1, 0), (0, 1), (-1, 0), (0, -1)]
TASKS = [TMazeTask(-1), TMazeTask(1)]
MAZES = [(length, variant) for length in (1, 2, 10) for variant in ("active", "passive")]
every_maze = pytest.mark.parametrize(("length", "variant"), MAZES)


class ReferenceMaze:
    """The rules of Ni et al. (2023), one agent at a time."""

    def __init__(self, length, variant, side=None):
        self.oracle = int(variant == "active")
        self.end, self.n_steps = self.oracle + length, length + 1 + 2 * self.oracle
        self.penalty, self.side = -1.0 / length, side

    def start(self):
        return self.oracle, 0

    def moved(self, cell, action):
        x, y = cell[0] + MOVES[action][0], cell[1] + MOVES[action][1]
        is_floor = (y == 0 and 0 <= x <= self.end) or (x == self.end and abs(y) == 1)
        return (x, y) if is_floor else cell

    def reward(self, t, cell):
        """Of step t, from 1, that ended on a cell."""
        if t == self.n_steps:
            return float(cell[1] == self.side)
        return self.penalty if cell[0] < t - self.oracle else 0.0

    def observation(self, cell, is_first_visit):
        if cell[0] == self.end:
            return [1, cell[1] % 3]
        return [0, self.side % 3 if cell[0] == 0 and is_first_visit else 0]


@every_maze
@pytest.mark.parametrize("side", [-1, 1])
def test_random_play_follows_the_published_rules(length, variant, side):
    env, maze = (
        TMazeEnv(corridor_length=length, variant=variant),
        ReferenceMaze(length, variant, side),
    )
    rng = np.random.default_rng(length)
    # Right and the arms are likely, so that all of the maze is met.
    for tilt in [(1, 1, 1, 1), (4, 1, 1, 1), (9, 1, 1, 1), (2, 1, 4, 1)] * 20:
        observation, _ = env.reset(options={"task": TMazeTask(side)})
        cell, was_there = maze.start(), maze.start()[0] == 0
        assert observation.tolist() == maze.observation(cell, True)
        for t in range(1, maze.n_steps + 1):
            action = int(rng.choice(4, p=np.array(tilt) / sum(tilt)))
            observation, reward, terminated, truncated, _ = env.step(action)
            cell = maze.moved(cell, action)
            assert observation.tolist() == maze.observation(cell, not was_there)
            was_there |= cell[0] == 0
            assert reward == maze.reward(t, cell)
            assert terminated == (t == maze.n_steps) and not truncated


def searched_return(maze):
    """The best return of an agent that knows the side, by looking at every walk."""

    @cache
    def best(t, cell):
        if t == maze.n_steps:
            return 0.0
        options = {maze.moved(cell, action) for action in range(4)}
        return max(maze.reward(t + 1, option) + best(t + 1, option) for option in options)

    return best(0, maze.start())


def searched_adaptive_return(length, variant):
    """The best expected return of an agent that has to find the side out."""
    mazes = {side: ReferenceMaze(length, variant, side) for side in (-1, 1)}
    maze = mazes[1]

    @cache
    def best(t, cell, known):
        if t == maze.n_steps:
            return 0.0
        sides = (known,) if known else (-1, 1)
        options = []
        for option in {maze.moved(cell, action) for action in range(4)}:
            # Rewards tell nothing before the last step, only the oracle does.
            values = [
                mazes[side].reward(t + 1, option)
                + best(t + 1, option, side if option[0] == 0 else known)
                for side in sides
            ]
            options.append(sum(values) / len(values))
        return max(options)

    first = [best(0, maze.start(), side if maze.start()[0] == 0 else 0) for side in (-1, 1)]
    return sum(first) / 2


@every_maze
def test_formula_backward_induction_and_search_agree_on_the_optimum(length, variant):
    family = TMazeFamily(corridor_length=length, variant=variant)
    mdps = family.finite_mdps(TASKS)
    values = (optimal_values(mdps)[:, 0] * mdps.initial).sum(-1)
    searched = [searched_return(ReferenceMaze(length, variant, task.side)) for task in TASKS]
    np.testing.assert_array_equal(family.optimal_returns(TASKS), [1.0, 1.0])
    np.testing.assert_array_equal(values, [1.0, 1.0])
    np.testing.assert_array_equal(searched, [1.0, 1.0])


@every_maze
def test_looking_first_costs_nothing(length, variant):
    family = TMazeFamily(corridor_length=length, variant=variant)
    assert family.best_adaptive_return() == searched_adaptive_return(length, variant) == 1.0


@every_maze
def test_the_best_plan_earns_the_optimum_and_guessing_half_of_it(length, variant):
    env = TMazeEnv(corridor_length=length, variant=variant)
    totals = {"look": [], "guess": []}
    for name, returns in totals.items():
        for task in TASKS:
            observation, _ = env.reset(options={"task": task})
            n_looks = env.family.oracle_length if name == "look" else 0
            actions = [2] * n_looks + [0] * (env.family.oracle_length + length)
            cue, total, over = int(observation[1]), 0.0, False
            while not over:
                turn = 3 if name == "look" and cue == 2 else 1
                action = actions.pop(0) if actions else turn
                observation, reward, over, _, _ = env.step(action)
                cue = cue or int(observation[1])
                total += reward
            returns.append(total)
    assert totals["look"] == [1.0, 1.0]
    assert totals["guess"] == [0.0, 1.0]


@every_maze
def test_every_state_and_action_does_what_the_rules_say(length, variant):
    family = TMazeFamily(corridor_length=length, variant=variant)
    n, horizon = family.n_positions, family.horizon
    for task in TASKS:
        maze = ReferenceMaze(length, variant, task.side)
        cells = [(x, 0) for x in range(maze.end + 1)] + [(maze.end, 1), (maze.end, -1)]
        mdp = family.finite_mdp(task)
        assert mdp.n_states == n * horizon and mdp.initial[maze.oracle] == 1.0
        for stage, position, action in np.ndindex(horizon, n, 4):
            following = maze.moved(cells[position], action)
            state, column = stage * n + position, ((stage + 1) % horizon) * n
            assert mdp.transitions[state, action, column + cells.index(following)] == 1.0
            assert mdp.rewards[state, action] == maze.reward(stage + 1, following)


def test_the_first_observation_tells_the_side_in_the_passive_variant_only():
    first = {
        variant: [
            TMazeEnv(variant=variant).reset(seed=0, options={"task": task})[0].tolist()
            for task in TASKS
        ]
        for variant in ("active", "passive")
    }
    assert first == {"active": [[0, 0], [0, 0]], "passive": [[0, 2], [0, 1]]}


def test_other_rewards_scale_the_optimum():
    family = TMazeFamily(goal_reward=4.0, penalty=-3.0)
    assert family.optimal_return(TASKS[0]) == 4.0 == family.best_adaptive_return()
    mdp = family.finite_mdp(TASKS[0])
    assert optimal_values(mdp)[0] @ mdp.initial == 4.0
    assert mdp.rewards.min() == -3.0


@pytest.mark.parametrize(
    "arguments",
    [
        {"corridor_length": 0},
        {"variant": "both"},
        {"penalty": 0.1},
        {"goal_reward": -1.0},
        {"penalty": np.nan},
    ],
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        TMazeFamily(**arguments)


def test_text_marks_where_the_agent_is():
    env = gym.make("metarl/TMaze-v0", render_mode="ansi", corridor_length=2).unwrapped
    env.reset(options={"task": TMazeTask(1)})
    texts = [env.render().split("\n")[1:4]]
    for action in (2, 0, 0, 0, 1):
        env.step(action)
        texts.append(env.render().split("\n")[1:4])
    assert texts[0] == ["      G", "C A . .", "      ."]
    assert texts[1][1] == "* . . ." and texts[2][1] == "C A . ."
    assert texts[3][1] == "C . A ." and texts[4][1] == "C . . A" and texts[5][0] == "      *"
