"""How to look for a goal that is drawn uniformly from some cells and known as soon as it is met.

Shapes: K episodes, H steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from metarl_envs.batched.checking import check_counts
from metarl_envs.tabular.gridworld.grid import Grid

MAX_NODES = 10_000


@dataclass(frozen=True)
class SearchPlan:
    """A walk to follow until it meets the goal, and what it pays."""

    walks: tuple[tuple[int, ...], ...]
    """cells of each episode, the start first, until every goal has been visited"""
    returns: tuple[float, ...]
    """(K,), expected return of each episode, with the shortest way to the goal once it is known"""


class _Node(NamedTuple):
    episode: int
    step: int
    cell: int
    unknown: int
    """goals that were not visited yet, one bit for each"""


class GoalSearch:
    """The walk over K episodes of H steps that meets the goal soonest, by A* search.

    Count how many steps earn the goal's reward, summed over goals: goal g at distance d from the
    start, first met at step t of episode k, has `(H - t + 1) + (K - k) (H - d + 1)` of them. The
    search maximises this sum. Its bound on what is still to come lets every goal be met in this
    episode as soon as its distance allows, one goal per step, and pays the known-goal return in all
    later episodes. It never grows along a walk, so the first complete walk is an optimum (Hart,
    Nilsson and Raphael, 1968, https://doi.org/10.1109/TSSC.1968.300136).

    :param grid: where
    :param start: the cell that every episode begins on; it counts as visited only by a step to it
    :param goals: cells, all of them equally likely
    :param horizon: H
    :param n_episodes: K
    """

    def __init__(
        self, grid: Grid, start: int, goals: list[int], horizon: int, n_episodes: int
    ) -> None:
        check_counts(n_episodes=n_episodes)
        self.start, self.goals, self.horizon, self.n_episodes = start, goals, horizon, n_episodes
        self._bits = {goal: 1 << i for i, goal in enumerate(goals)}
        # As lists: indexing NumPy arrays one number at a time is slow.
        self._neighbours = [sorted(set(row)) for row in grid.neighbours.tolist()]
        from_start = grid.distances(start)
        self._n_paid = {g: max(0, horizon - max(int(from_start[g]), 1) + 1) for g in goals}
        self._nearest = [
            sorted((int(row[goal]), goal) for goal in goals)
            for row in (grid.distances(cell) for cell in range(grid.n_cells))
        ]

    def plan(self, goal_reward: float, step_reward: float, max_nodes: int) -> SearchPlan:
        """The best walk and its expected returns.

        :param goal_reward: of every step on the goal; larger than `step_reward`
        :param step_reward: of any other step
        :param max_nodes: after which the search gives up with a `ValueError`
        """
        check_counts(max_nodes=max_nodes)
        walks = self._walks(self._search(max_nodes))
        met = self._first_meetings(walks)
        returns = []
        for episode in range(self.n_episodes):
            paid = sum(self._n_paid_in(episode, goal, met.get(goal)) for goal in self.goals)
            mean = paid / len(self.goals)
            returns.append(mean * goal_reward + (self.horizon - mean) * step_reward)
        return SearchPlan(walks, tuple(returns))

    def _search(self, max_nodes: int) -> list[_Node]:
        """The nodes of the best walk, from the start on."""
        root = _Node(0, 0, self.start, (1 << len(self.goals)) - 1)
        tie_breaker = count()
        heap = [(-self._bound(root), 0, next(tie_breaker), 0, root, root)]
        parents: dict[_Node, _Node] = {}
        while len(parents) < max_nodes:
            _, depth, _, gained, node, parent = heappop(heap)
            if node in parents:
                continue
            parents[node] = parent
            if not node.unknown or node.episode == self.n_episodes:
                return self._way_to(node, parents)
            for following, gain in self._steps(node):
                bound = gained + gain + self._bound(following)
                # Of equal bounds the deepest first: a search that dives.
                entry = (-bound, depth - 1, next(tie_breaker), gained + gain, following, node)
                heappush(heap, entry)
        raise ValueError(
            f"the search took more than max_nodes={max_nodes} nodes: give more of them, a smaller "
            f"grid, another horizon or fewer than n_episodes={self.n_episodes} episodes"
        )

    def _steps(self, node: _Node) -> Iterator[tuple[_Node, int]]:
        """Each next node with what it gains."""
        if node.step == self.horizon:
            yield _Node(node.episode + 1, 0, self.start, node.unknown), 0
            return
        step = node.step + 1
        for cell in self._neighbours[node.cell]:
            bit = self._bits.get(cell, 0) & node.unknown
            later = self.n_episodes - node.episode - 1
            gain = self.horizon - step + 1 + later * self._n_paid[cell] if bit else 0
            yield _Node(node.episode, step, cell, node.unknown & ~bit), gain

    def _bound(self, node: _Node) -> int:
        """At least what can still be gained."""
        later = self.n_episodes - node.episode - 1
        if later < 0:
            return 0
        total, slot = 0, node.step
        for distance, goal in self._nearest[node.cell]:
            if self._bits[goal] & node.unknown:
                slot = max(slot + 1, node.step + distance)
                total += max(0, self.horizon - slot + 1) + later * self._n_paid[goal]
        return total

    def _way_to(self, node: _Node, parents: dict[_Node, _Node]) -> list[_Node]:
        way = [node]
        while parents[way[-1]] != way[-1]:
            way.append(parents[way[-1]])
        return way[::-1]

    def _walks(self, way: list[_Node]) -> tuple[tuple[int, ...], ...]:
        last = min(way[-1].episode, self.n_episodes - 1)
        return tuple(
            tuple(node.cell for node in way if node.episode == episode)
            for episode in range(last + 1)
        )

    def _first_meetings(self, walks: tuple[tuple[int, ...], ...]) -> dict[int, tuple[int, int]]:
        """Episode and step in which each goal is first visited."""
        met: dict[int, tuple[int, int]] = {}
        for episode, walk in enumerate(walks):
            for step, cell in enumerate(walk[1:], start=1):
                met.setdefault(cell, (episode, step))
        return met

    def _n_paid_in(self, episode: int, goal: int, met: tuple[int, int] | None) -> int:
        """Steps of an episode that earn the goal's reward."""
        if met is None or episode < met[0]:
            return 0
        return self.horizon - met[1] + 1 if episode == met[0] else self._n_paid[goal]
