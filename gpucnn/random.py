"""The random streams: Philox 4x32-10, a counter through a keyed cipher, the same bits on every device.

Method: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A stream is named
by a triple ``(seed, step, purpose)`` and is an array of 32-bit words without end; word ``4 b + j`` is word
``j`` of the cipher of block ``b``:

    key      k0 = seed, low 32 bits         k1 = seed, high 32 bits
    counter  c0 = b, low 32 bits            c1 = purpose << 16 | b, bits 32 to 47
             c2 = step, low 32 bits         c3 = step, high 32 bits

so seed and step have 64 bits, purpose 16 and the block index 48, and different triples never share a block.
kernels/philox.cuh is this file in CUDA. Words, uniforms, masks, integers and permutations are made of integer
arithmetic and exact conversions and are therefore bit-identical everywhere; normal variates need a logarithm
and a cosine and are drawn on the host only.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Key = tuple[int, int, int]
"""(seed, step, purpose): the name of one stream."""

Shape = int | Sequence[int]


class Purpose(IntEnum):
    """What a stream is drawn for. Saved runs hold the numbers: never reuse one. Users count from ``USER``."""

    DROPOUT = 1
    SHUFFLE = 2
    AUGMENT = 3
    INIT = 4
    SAMPLE = 5  # gpucnn.rand, randn and their like
    SHAPES = 6  # the generated data set
    SPLIT = 7  # data sets taken apart: random_split
    FLIP = 8  # an image's own coin: step is its place in the data set
    USER = 1024


MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and sqrt(3) - 1, what the key grows by from round to round
ROUNDS = 10
FEISTEL_ROUNDS = 12
FEISTEL_LEAST_WIDTH = 6
WORD = 1 << 32
_LOW = np.uint64(WORD - 1)
_SHIFT = np.uint64(32)
_CHUNK = 1 << 14  # blocks per pass: the working set of one pass stays in a core's cache


def philox(counter: ArrayLike, key: ArrayLike) -> NDArray[np.uint32]:
    """Philox 4x32-10 of ``counter`` (..., 4) under ``key`` (2,), both uint32: (..., 4) uint32."""
    words = np.asarray(counter, dtype=np.uint64)
    if words.shape[-1:] != (4,) or np.any(words > _LOW):
        raise ValueError(f"philox: counter must be (..., 4) words of 32 bits, got shape {words.shape}")
    k0, k1 = (int(k) for k in np.asarray(key, dtype=np.uint32))
    cipher = _rounds(words[..., 0], words[..., 1], words[..., 2], words[..., 3], k0, k1)
    return np.stack(cipher, axis=-1).astype(np.uint32)


def _rounds(
    c0: NDArray[np.uint64],
    c1: NDArray[np.uint64],
    c2: NDArray[np.uint64],
    c3: NDArray[np.uint64],
    k0: int,
    k1: int,
) -> tuple[NDArray[np.uint64], ...]:
    for _ in range(ROUNDS):
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + WEYL[0]) % WORD, (k1 + WEYL[1]) % WORD
    return c0, c1, c2, c3


def _checked(key: Key) -> Key:
    seed, step, purpose = (int(part) for part in key)
    if not (0 <= seed < 1 << 64 and 0 <= step < 1 << 64 and 0 <= purpose < 1 << 16):
        raise ValueError(
            "random stream: seed and step must have 64 bits and purpose 16, "
            f"got seed {seed}, step {step}, purpose {purpose}"
        )
    return seed, step, purpose


def bits(size: int, key: Key, offset: int = 0) -> NDArray[np.uint32]:
    """Words ``offset`` to ``offset + size`` of the stream of ``key``, (size,) uint32."""
    seed, step, purpose = _checked(key)
    first, last = offset // 4, -(-(offset + size) // 4)
    if size < 0 or offset < 0 or last > 1 << 48:
        raise ValueError(f"random stream: words {offset} to {offset + size} are outside [0, 2**50)")
    words = np.empty((last - first, 4), dtype=np.uint32)
    for start in range(first, last, _CHUNK):
        block = np.arange(start, min(start + _CHUNK, last), dtype=np.uint64)
        high = (block >> _SHIFT) | np.uint64(purpose << 16)
        step_low, step_high = (np.full_like(block, word) for word in (step % WORD, step // WORD))
        cipher = _rounds(block & _LOW, high, step_low, step_high, seed % WORD, seed // WORD)
        for j in range(4):
            words[start - first : start - first + len(block), j] = cipher[j]
    return words.reshape(-1)[offset - 4 * first :][:size]


def _shape(shape: Shape) -> tuple[int, ...]:
    return tuple(int(s) for s in shape) if isinstance(shape, Sequence) else (int(shape),)


def uniform(shape: Shape, key: Key) -> NDArray[np.float32]:
    """float32 in [0, 1), the multiples of 2**-24: the upper 24 bits of one word each."""
    shape = _shape(shape)
    upper = (bits(math.prod(shape), key) >> np.uint32(8)).astype(np.float32)
    return (upper * np.float32(2.0**-24)).reshape(shape)


def drop_threshold(p: float) -> int:
    """The words below this number are dropped: p as a fraction of 2**32, rounded down, for 0 <= p < 1."""
    if not 0.0 <= p < 1.0:
        raise ValueError(f"keep_mask: the probability of dropping must be in [0, 1), got {p}")
    return int(p * WORD)


def keep_mask(size: int, p: float, key: Key) -> NDArray[np.bool_]:
    """(size,) bool, False with probability ``p``; one word each, compared as an integer; 0 <= p < 1."""
    return bits(size, key) >= np.uint32(drop_threshold(p))


def integers(low: int, high: int, shape: Shape, key: Key) -> NDArray[np.int64]:
    """int64 in [low, high): low + (word * (high - low) >> 32), one word each; at most 2**32 values.

    Not exactly uniform: the probabilities of the values differ from one another by at most 2**-32.
    """
    count = high - low
    if not 0 < count <= WORD:
        raise ValueError(f"integers: high - low must be from 1 to 2**32, got low {low}, high {high}")
    shape = _shape(shape)
    words = bits(math.prod(shape), key).astype(np.uint64)
    return (((words * np.uint64(count)) >> _SHIFT).astype(np.int64) + low).reshape(shape)


def permutation(n: int, key: Key) -> NDArray[np.int64]:
    """A permutation of 0 .. n-1 as int64: a keyed bijection of the index, so any part can be computed alone.

    An alternating Feistel network of 12 rounds on the smallest power of two above ``n``, 64 at least; an index
    that it sends beyond ``n`` is sent on until it falls inside (cycle walking: Black, Rogaway, "Ciphers with
    arbitrary finite domains", CT-RSA 2002). Round keys are the first 12 words of the stream, the round
    function is MurmurHash3's 32-bit finalizer. The power is strictly above ``n`` because the network by itself
    makes even permutations only, and at least 64 because halves of two bits mix badly
    (tests/test_random.py counts them). Even and odd permutations are still not equally likely: of ``n`` just
    below a power of two nearly all have one parity.
    """
    if not 0 <= n < 1 << 62:
        raise ValueError(f"permutation: n must be in [0, 2**62), got {n}")
    width = max(n.bit_length(), FEISTEL_LEAST_WIDTH)
    round_keys = bits(FEISTEL_ROUNDS, key)
    network = _feistel(np.arange(1 << width, dtype=np.uint64), width, round_keys).astype(np.int64)
    result = network[:n].copy()
    outside = np.flatnonzero(result >= n)
    while outside.size:
        moved = network[result[outside]]
        result[outside] = moved
        outside = outside[moved >= n]
    return result


def _feistel(index: NDArray[np.uint64], width: int, round_keys: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """One pass of the network over ``width`` bits: each half in turn changes the other."""
    low_width = width // 2
    masks = (np.uint32((1 << low_width) - 1), np.uint32((1 << (width - low_width)) - 1))
    halves = [(index & np.uint64(masks[0])).astype(np.uint32), (index >> np.uint64(low_width)).astype(np.uint32)]
    for i, round_key in enumerate(round_keys):
        halves[i % 2] ^= _mix(halves[1 - i % 2] ^ round_key) & masks[i % 2]
    return halves[0].astype(np.uint64) | (halves[1].astype(np.uint64) << np.uint64(low_width))


def _mix(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """MurmurHash3's finalizer: every bit of the word sways every other."""
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def normal(shape: Shape, key: Key) -> NDArray[np.float32]:
    """float32 standard normal variates, two of two words: Box and Muller's method in float64; host only."""
    shape = _shape(shape)
    return _normals(math.prod(shape), key, 0).astype(np.float32).reshape(shape)


def _normals(size: int, key: Key, pair_offset: int) -> NDArray[np.float64]:
    """``size`` normal variates from pair ``pair_offset`` of the stream's pairs of words on."""
    words = bits(2 * (-(-size // 2)), key, 2 * pair_offset).astype(np.float64).reshape(-1, 2)
    radius = np.sqrt(-2.0 * np.log((words[:, 0] + 0.5) / WORD))  # + 0.5: never the logarithm of 0
    angle = (2.0 * np.pi / WORD) * words[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:size]


def truncated_normal(shape: Shape, key: Key, std: float = 1.0, limit: float = 2.0) -> NDArray[np.float32]:
    """float32 normal variates of mean 0, those beyond ``limit`` sigma drawn again; ``std`` is sigma uncut.

    TensorFlow's rule of the same name. Redrawn ones take the stream's next pairs, in order. Host only.
    """
    if not limit >= 0.1:
        raise ValueError(f"truncated_normal: limit must be at least 0.1 sigma, got {limit}")
    shape = _shape(shape)
    result = _normals(math.prod(shape), key, 0)
    used = -(-result.size // 2)
    outside = np.flatnonzero(np.abs(result) > limit)
    while outside.size:
        redrawn = _normals(outside.size, key, used)
        used += -(-outside.size // 2)
        result[outside] = redrawn
        outside = outside[np.abs(redrawn) > limit]
    return (result * std).astype(np.float32).reshape(shape)


class Generator:
    """Hands out streams: a seed, and for each purpose a count of the streams taken so far.

    The counts are apart so that a loader's thread, drawing for its purpose, does not change what others draw.
    """

    def __init__(self, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self.manual_seed(seed)

    @property
    def seed(self) -> int:
        """The seed, in [0, 2**64)."""
        return self._seed

    def manual_seed(self, seed: int) -> Generator:
        """Starts all streams again from ``seed`` in [-2**63, 2**64); a negative one means 2**64 + seed (PyTorch)."""
        if not hasattr(seed, "__index__"):
            raise TypeError(f"manual_seed: seed must be an int, got {seed!r}")
        seed = int(seed)
        if not -(1 << 63) <= seed < 1 << 64:
            raise ValueError(f"manual_seed: seed must be in [-2**63, 2**64), got {seed}")
        with self._lock:
            self._seed = seed % (1 << 64)
            self._steps: dict[int, int] = {}
        return self

    def next_key(self, purpose: int) -> Key:
        """(seed, step, purpose) of a stream that this generator has not handed out before."""
        purpose = int(purpose)
        with self._lock:
            step = self._steps.get(purpose, 0)
            key = _checked((self._seed, step, purpose))
            self._steps[purpose] = step + 1
        return key

    def advance(self, counts: Mapping[int, int]) -> None:
        """Takes so many streams of each purpose as used, as so many calls of :meth:`next_key` would."""
        with self._lock:
            for purpose, count in counts.items():
                self._steps[int(purpose)] = self._steps.get(int(purpose), 0) + count

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on from here: plain numbers and strings, fit for JSON."""
        with self._lock:
            return {"seed": self._seed, "steps": {str(p): step for p, step in sorted(self._steps.items())}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where the generator of ``state`` stood. Raises ValueError for what is no such state."""
        try:
            seed = int(state["seed"])
            steps = {int(purpose): int(step) for purpose, step in state["steps"].items()}
            for purpose, step in steps.items():
                _checked((seed, step, purpose))
            _checked((seed, 0, 0))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"random generator: not a saved state: {state!r}") from error
        with self._lock:
            self._seed, self._steps = seed, steps


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seeds :data:`default_generator`, the source of the streams of initialisation, dropout and shuffling."""
    return default_generator.manual_seed(seed)
