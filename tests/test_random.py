"""The random streams of gpucnn/random.py on the host: published vectors, ranges, independence, and the generator."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest

from gpucnn import random
from gpucnn.random import Generator, Purpose

KEY = (2026, 3, int(Purpose.USER))
M0, M1, W0, W1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85

# Random123, tests/kat_vectors, the lines "philox4x32 10": counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def _words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def _cipher(counter: list[int], key: list[int]) -> list[int]:
    """Philox 4x32-10 in Python's integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        a, b = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b % 2**32, (a >> 32) ^ c3 ^ k1, a % 2**32
        k0, k1 = (k0 + W0) % 2**32, (k1 + W1) % 2**32
    return [c0, c1, c2, c3]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_cipher_gives_the_published_answers(counter: str, key: str, expected: str) -> None:
    assert random.philox(_words(counter), _words(key)).tolist() == _words(expected)
    assert _cipher(_words(counter), _words(key)) == _words(expected)
    stacked = random.philox([[_words(counter)], [[1, 2, 3, 4]]], _words(key))
    assert stacked.shape == (2, 1, 4) and stacked.dtype == np.uint32
    assert stacked[0, 0].tolist() == _words(expected)


def test_a_stream_is_the_cipher_of_seed_step_purpose_and_block() -> None:
    seed, step, purpose = 0x0123456789ABCDEF, 0xFEDCBA9876543210, 0xBEEF
    offset = 4 * (2**32 + 5) + 3  # beyond 32 bits of blocks, in the middle of one
    words = random.bits(7, (seed, step, purpose), offset)
    expected = []
    for block in range(2**32 + 5, 2**32 + 8):
        counter = [block % 2**32, purpose << 16 | block >> 32, step % 2**32, step >> 32]
        expected += _cipher(counter, [seed % 2**32, seed >> 32])
    assert words.dtype == np.uint32
    assert words.tolist() == expected[3:10]


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 4 * random._CHUNK + 1])
def test_any_part_of_a_stream_can_be_drawn_alone(size: int) -> None:
    whole = random.bits(size + 9, KEY)
    for offset in (0, 1, 4, 9):
        np.testing.assert_array_equal(random.bits(size, KEY, offset), whole[offset : offset + size])


def test_seed_step_and_purpose_each_change_the_stream() -> None:
    keys = [KEY, (2027, 3, 1024), (2026, 4, 1024), (2026, 3, 1025), (2026 + 2**32, 3, 1024), (2026, 3 + 2**32, 1024)]
    drawn = [random.bits(1000, key) for key in keys]
    for i, first in enumerate(drawn):
        assert all(np.count_nonzero(first == other) < 3 for other in drawn[i + 1 :])


@pytest.mark.parametrize("key", [(-1, 0, 0), (2**64, 0, 0), (0, 2**64, 0), (0, -1, 0), (0, 0, 2**16)])
def test_numbers_that_do_not_fit_the_counter_are_refused(key: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="64 bits and purpose 16"):
        random.bits(4, key)


def test_uniforms_are_the_upper_24_bits() -> None:
    values = random.uniform((50, 400), KEY)
    assert values.dtype == np.float32 and values.shape == (50, 400)
    np.testing.assert_array_equal(values.astype(np.float64).ravel(), (random.bits(20000, KEY) // 256) / 2.0**24)
    assert values.min() >= 0 and values.max() < 1
    counts, _ = np.histogram(values, bins=20, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # 19 degrees of freedom: beyond this once in 10,000


def test_keep_mask_compares_integers() -> None:
    words = random.bits(9999, KEY)
    for p in (0.0, 0.1, 0.5, 0.999):
        kept = random.keep_mask(9999, p, KEY)
        assert kept.dtype == np.bool_
        assert kept.tolist() == [word >= math.floor(p * 2**32) for word in words.tolist()]
        assert abs(kept.mean() - (1 - p)) < 4 * math.sqrt(p * (1 - p) / 9999) + 1e-9
    for p in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="keep_mask"):
            random.keep_mask(4, p, KEY)


def test_integers_cover_their_range_evenly() -> None:
    values = random.integers(-3, 6, (100, 90), KEY)
    assert values.dtype == np.int64 and values.shape == (100, 90)
    counts = Counter(values.ravel().tolist())
    assert sorted(counts) == list(range(-3, 6))
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 32  # 8 degrees of freedom: once in 10,000
    np.testing.assert_array_equal(random.integers(0, 2**32, 50, KEY), random.bits(50, KEY))
    assert (random.integers(7, 8, 20, KEY) == 7).all()
    for low, high in ((3, 3), (4, 3), (0, 2**32 + 1)):
        with pytest.raises(ValueError, match="integers"):
            random.integers(low, high, 4, KEY)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 1000, 4096, 50000])
def test_permutation_holds_every_index_once(n: int) -> None:
    order = random.permutation(n, KEY)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def _chi_square(counts: Counter[tuple[int, ...]], n: int, trials: int) -> float:
    """How far counts of permutations of n are from equal, in standard deviations of the chi-square statistic."""
    cells, expected = math.factorial(n), trials / math.factorial(n)
    statistic = sum((count - expected) ** 2 / expected for count in counts.values()) + expected * (cells - len(counts))
    return (statistic - (cells - 1)) / math.sqrt(2 * (cells - 1))


@pytest.mark.parametrize("n", [3, 4])
def test_permutations_are_equally_likely(n: int) -> None:
    trials = 100 * math.factorial(n)
    counts = Counter(tuple(random.permutation(n, (2, step, 2)).tolist()) for step in range(trials))
    assert abs(_chi_square(counts, n, trials)) < 5


@pytest.mark.parametrize(("width", "uniform"), [(random.FEISTEL_LEAST_WIDTH, True), (4, False)])
def test_the_least_width_of_the_network_mixes_and_a_smaller_one_does_not(width: int, uniform: bool) -> None:
    """Permutations of five indices under 30,000 keys; with halves of two bits they are far from equally likely."""
    n, trials = 5, 30000
    round_keys = random.bits(random.FEISTEL_ROUNDS * trials, KEY).reshape(-1, trials, 1)
    walked = np.tile(np.arange(n, dtype=np.uint64), (trials, 1))
    outside = np.ones(walked.shape, bool)
    while outside.any():
        walked = np.where(outside, random._feistel(walked, width, round_keys), walked)
        outside &= walked >= n
    distance = _chi_square(Counter(map(tuple, walked.tolist())), n, trials)
    assert (abs(distance) < 4) is uniform


def test_permutations_of_a_power_of_two_are_even_and_odd() -> None:
    """The network makes even permutations only of as many indices as it has numbers, so it has more than that."""
    n, odd = 64, 0
    for step in range(100):
        order, seen, cycles = random.permutation(n, (3, step, 2)).tolist(), set(), 0
        for start in range(n):
            cycles += start not in seen
            while start not in seen:
                seen.add(start)
                start = order[start]
        odd += (n - cycles) % 2
    assert 25 < odd < 75


def test_permutations_scatter_neighbours() -> None:
    n, trials = 257, 400
    orders = np.stack([random.permutation(n, (5, step, 2)) for step in range(trials)])
    places, _, _ = np.histogram2d(np.tile(np.arange(n), trials), orders.ravel(), bins=8)
    assert abs(places / places.mean() - 1).max() < 0.12
    steps = (np.diff(orders, axis=1) % n).ravel()
    counts = np.bincount(steps, minlength=n)[1:]
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 256 + 5 * math.sqrt(2 * 256)


def _normal_share(low: float, high: float) -> float:
    return 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))


def test_normal_variates_have_the_normal_distribution() -> None:
    values = random.normal((101, 199), KEY)  # an odd number
    assert values.dtype == np.float32 and values.shape == (101, 199)
    edges = [-math.inf, -2, -1, -0.5, 0, 0.5, 1, 2, math.inf]
    shares = [_normal_share(a, b) for a, b in itertools.pairwise(edges)]
    counts, _ = np.histogram(values, bins=[-100.0, *edges[1:-1], 100.0])
    expected = np.array(shares) * values.size
    assert ((counts - expected) ** 2 / expected).sum() < 30  # 7 degrees of freedom: once in 10,000
    pairs = values.ravel()[:-1].reshape(-1, 2).astype(np.float64)
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.04


def test_truncated_normal_draws_the_tails_again() -> None:
    std = 0.05
    values = random.truncated_normal((123, 101), KEY, std)
    plain = random.normal((123, 101), KEY)
    assert values.dtype == np.float32 and abs(values).max() <= 2 * std * (1 + 1e-6)
    inside = abs(plain) <= 2
    np.testing.assert_allclose(values[inside], plain[inside] * std, rtol=1e-6)
    assert 0.03 < (~inside).mean() < 0.06
    # The standard deviation of a normal cut at 2 sigma: 1 - 2 * 2 phi(2) / (2 Phi(2) - 1) under the root.
    phi, share = math.exp(-2) / math.sqrt(2 * math.pi), _normal_share(-2, 2)
    assert abs(values.std() / std - math.sqrt(1 - 4 * phi / share)) < 0.02
    narrow = random.truncated_normal(1000, KEY, 1.0, limit=0.5)
    assert abs(narrow).max() <= 0.5
    assert np.unique(narrow).size > 990  # what is drawn again and again is drawn anew
    with pytest.raises(ValueError, match="limit"):
        random.truncated_normal(4, KEY, 1.0, limit=0.0)


def test_a_generator_never_gives_a_stream_twice() -> None:
    generator = Generator(7)
    keys = [generator.next_key(purpose) for purpose in (Purpose.DROPOUT, Purpose.SHUFFLE) for _ in range(50)]
    assert len(set(keys)) == 100
    assert keys[0] == (7, 0, 1) and keys[51] == (7, 1, 2)


def test_the_streams_of_one_purpose_do_not_depend_on_the_draws_for_another() -> None:
    quiet, busy = Generator(7), Generator(7)
    for _ in range(13):
        busy.next_key(Purpose.SHUFFLE)
    assert quiet.next_key(Purpose.DROPOUT) == busy.next_key(Purpose.DROPOUT)


def test_a_saved_generator_goes_on_where_it_stood() -> None:
    first = Generator(2**64 - 1)
    for purpose in (1, 1, 3, 2000):
        first.next_key(purpose)
    state = json.loads(json.dumps(first.state_dict()))
    second = Generator(0)
    second.load_state_dict(state)
    assert second.seed == 2**64 - 1
    for purpose in (1, 3, 2000, 2):
        assert first.next_key(purpose) == second.next_key(purpose)
    assert first.manual_seed(5).next_key(1) == (5, 0, 1)


@pytest.mark.parametrize(
    "state", [{}, {"seed": 1}, {"seed": -1, "steps": {}}, {"seed": 1, "steps": {"1": -4}}, {"seed": 1, "steps": 3}]
)
def test_a_damaged_state_is_refused_and_changes_nothing(state: dict[str, object]) -> None:
    generator = Generator(9)
    generator.next_key(1)
    with pytest.raises(ValueError, match="not a saved state"):
        generator.load_state_dict(state)
    assert generator.next_key(1) == (9, 1, 1)


def test_seeds() -> None:
    assert Generator(-1).seed == 2**64 - 1
    assert Generator(np.int64(5)).seed == 5
    for seed in (2**64, -(2**63) - 1):
        with pytest.raises(ValueError, match="manual_seed"):
            Generator(seed)
    with pytest.raises(TypeError, match="manual_seed"):
        Generator(1.5)  # type: ignore[arg-type]


def test_manual_seed_restarts_the_default_generator() -> None:
    before = random.default_generator.state_dict()
    try:
        random.manual_seed(11)
        assert random.default_generator.next_key(Purpose.INIT) == (11, 0, 4)
    finally:
        random.default_generator.load_state_dict(before)
