"""What the pages of docs/ say is true: their code runs, is short and keeps the laws."""

import importlib
import itertools
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from metarl_envs import check_task_env, check_task_vector_env
from metarl_envs.checks import TASK_ENV_CHECKS, TASK_VECTOR_ENV_CHECKS

DOCS = Path(__file__).parents[1] / "docs"


def blocks_of(page):
    """The Python of a page, block by block."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


BLOCKS = blocks_of("your_own_family.md")
MODULES = {
    match.group(1): block
    for block in BLOCKS
    if (match := re.match(r"# (\w+)\.py\n", block)) is not None
}
SNIPPETS = [block for block in BLOCKS if block not in MODULES.values()]
# These run where a family has features, masks and known optima.
OPTIONAL = {
    "features_are_pure_and_complete",
    "action_masks_agree_with_infos",
    "optimal_return_bounds_random_play",
    "optimal_return_agrees_with_optimal_returns",
    "policy_returns_agree_with_random_play",
}


@pytest.fixture(scope="module", autouse=True)
def modules(tmp_path_factory):
    """The page's modules, importable as a reader would have them."""
    folder, ids = tmp_path_factory.mktemp("page"), set(gym.registry)
    for name, block in MODULES.items():
        (folder / f"{name}.py").write_text(block, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    finally:
        sys.path.remove(str(folder))
        for name in MODULES:
            sys.modules.pop(name, None)
        for env_id in set(gym.registry) - ids:
            gym.registry.pop(env_id)


def test_the_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in SNIPPETS:
        exec(compile(block, "your_own_family.md", "exec"), names)
    assert names["model"].num_timesteps >= 32
    # The best policy is at the end that pays after the second of six steps.
    assert names["regret"] == pytest.approx(5 - expected_stays(6), abs=1e-12)


def expected_stays(n_steps):
    """Expected visits of one end by a fair walk over five cells whose ends hold, by enumeration."""
    visits = 0
    for moves in itertools.product((-1, 1), repeat=n_steps):
        cell = 2
        for move in moves:
            cell = min(max(cell + move, 0), 4)
            visits += cell == 4
    return visits / 2**n_steps


def test_cart_poles_take_fewer_than_60_lines():
    assert len([line for line in MODULES["cart_poles"].splitlines() if line.strip()]) < 60


@pytest.mark.parametrize("env_id", ["CartPoles-v0", "Corridors-v0", "Pendulums-v0"])
def test_single_envs_keep_the_laws(env_id):
    assert TASK_ENV_CHECKS.keys() - set(check_task_env(env_id)) <= OPTIONAL


@pytest.mark.parametrize("env_id", ["CartPoles-v0", "Corridors-v0"])
def test_vector_envs_keep_the_laws(env_id):
    assert set(check_task_vector_env(env_id)) == TASK_VECTOR_ENV_CHECKS.keys()


def gymnasium_s_cart_pole(half_length, seed):
    env = gym.make("CartPole-v1")
    env.unwrapped.length = half_length
    env.unwrapped.polemass_length = env.unwrapped.masspole * half_length
    env.reset(seed=seed)
    return env


def balancing(state):
    position, velocity, angle, rotation = state
    return int(0.02 * position + 0.05 * velocity + angle + 0.3 * rotation > 0)


half_lengths = pytest.mark.parametrize("half_length", [0.25, 0.5, 1.0])


@half_lengths
def test_every_step_is_that_of_gymnasium_s_cart_pole(modules, half_length):
    family = modules.cart_poles.CartPolesFamily()
    params = family.compile(np.array([[half_length]]))
    theirs = gymnasium_s_cart_pole(half_length, seed=0)
    stages, uniforms = np.zeros(1, dtype=np.int64), np.empty((1, 0))
    rng = np.random.default_rng(0)
    for episode in range(5):
        theirs.reset(seed=episode)
        # The first episode lasts to the time limit, the others until the pole falls.
        done = False
        while not done:
            state = theirs.unwrapped.state
            action = balancing(state) if episode == 0 else int(rng.integers(2))
            states, rewards, fallen = family.step(
                params, state[None], stages, np.array([action]), uniforms
            )
            _, reward, terminated, truncated, _ = theirs.step(action)
            # Some 20 roundings of numbers below 100, times the time step: below 1e-14.
            assert np.allclose(states[0], theirs.unwrapped.state, rtol=0, atol=1e-14)
            assert (rewards[0], fallen[0]) == (reward, terminated)
            done = terminated or truncated
        assert (truncated, terminated) == (episode == 0, episode > 0)


@half_lengths
@pytest.mark.parametrize("seed", range(3))
def test_episodes_are_those_of_gymnasium_s_cart_pole(modules, half_length, seed):
    ours, theirs = gym.make("CartPoles-v0"), gymnasium_s_cart_pole(half_length, seed)
    ours.unwrapped.set_task(modules.cart_poles.PoleTask(half_length))
    observation, _ = ours.reset(seed=seed)
    # The same four random numbers, to the bit.
    assert np.array_equal(observation, theirs.unwrapped.state.astype(np.float32))
    done, n_steps = False, 0
    while not done:
        observation, *ends, _ = ours.step(1)
        seen, *their_ends, _ = theirs.step(1)
        # Roundings grow by at most e^0.12 per step, tenfold in all; float32 has 1e-7.
        assert np.allclose(observation, seen, rtol=0, atol=1e-6)
        assert ends == their_ends
        done, n_steps = ends[1], n_steps + 1
    assert n_steps < 20


@half_lengths
def test_balanced_poles_are_truncated_after_500_steps(modules, half_length):
    env = gym.make("CartPoles-v0")
    env.unwrapped.set_task(modules.cart_poles.PoleTask(half_length))
    observation, _ = env.reset(seed=0)
    for _ in range(500):
        observation, _, terminated, truncated, info = env.step(balancing(observation))
        assert not terminated
        assert truncated == (info["stage"] == 500)
    assert truncated


def test_the_certificates_of_the_page_on_gradients_say_what_it_says(capsys):
    (block,) = [block for block in blocks_of("gradient.md") if "certify_meta_gradient" in block]
    exec(compile(block, "gradient.md", "exec"), {})
    biases = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(biases["sgmrl"]) < 1e-10
    assert float(biases["dice"]) < float(biases["emaml"]) < float(biases["maml"])


def test_the_page_on_bo_mrl_says_what_its_code_finds(capsys):
    names: dict[str, object] = {}
    for block in blocks_of("bo_mrl.md"):
        exec(compile(block, "bo_mrl.md", "exec"), names)
    page = " ".join((DOCS / "bo_mrl.md").read_text(encoding="utf-8").split())
    first, second, third = names["cosines"].values()
    after = [f"{value:.2f}" for value in names["values"].values()]
    assert f"1, 0.3 and 0.1 it earns {after[0]}, {after[1]} and {after[2]} of 1.64" in page
    assert f"the cosines are {first:.2f}, {second:.2f} and {third:.2f}" in page
    learned, uniform = names["returns"].values()
    best = names["env"].discounted_optimal_returns(names["tasks"]).mean()
    assert f"earns {learned[1]:.2f} of the {best:.2f} that are possible" in page
    assert f"one from the uniform policy {uniform[1]:.2f}" in page
    assert abs(learned[2] - uniform[2]) < 0.01
    gaps, found = names["found"]["gap"], names["found"]
    assert (gaps <= found["B5"]).all() and (gaps <= found["B6"]).all()
    assert found["B2"].mean() > 1000 * gaps.mean()
    assert "k_one <= lam: in" in capsys.readouterr().out  # an assumption that fails is printed


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_links_and_pictures_are_there(path):
    links = re.findall(r"\]\((?!http|#)([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (DOCS / link).exists()] == []


def test_the_index_leads_to_every_page():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"```\{toctree\}\n(.*?)```", index, flags=re.DOTALL)
    listed = {line for line in tree.splitlines() if line and not line.startswith(":")}
    assert listed == {path.stem for path in DOCS.glob("*.md")} - {"index"}
