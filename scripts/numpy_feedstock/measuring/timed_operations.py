"""Time operations of numpy that call no BLAS. The Python that is measured runs this file.

Prints {operation: seconds of one call, in the fastest of its repetitions} as JSON.
"""

import json
import time
from collections.abc import Callable

import numpy as np

SECONDS = 0.02  # the shortest time of one repetition
REPETITIONS = 5
# Three such arrays fit into a core's caches. With larger ones the time depends on where the
# process's pages lie: with 100,000 the same build took 33 or 45 microseconds for `add f8`.
SIZE = 20_000

random = np.random.default_rng(0)
f8, g8 = random.random(SIZE) + 0.5, random.random(SIZE) + 0.5
f4, g4 = f8.astype("f4"), g8.astype("f4")
i8, j8 = random.integers(1, 1000, SIZE), random.integers(1, 1000, SIZE)
i4, i2, u1 = i8.astype("i4"), i8.astype("i2"), i8.astype("u1")
c16, mask, index = f8 + 1j * g8, f8 > 1, random.integers(0, SIZE, SIZE)
small = f8[:10]
words = i8.astype("U")[:10_000]
out8, out4, outi = np.empty_like(f8), np.empty_like(f4), np.empty_like(i8)

OPERATIONS: dict[str, Callable[[], object]] = {
    "add f8": lambda: np.add(f8, g8, out=out8),
    "multiply f4": lambda: np.multiply(f4, g4, out=out4),
    "divide f8": lambda: np.divide(f8, g8, out=out8),
    "add i8": lambda: np.add(i8, j8, out=outi),
    "multiply i8": lambda: np.multiply(i8, j8, out=outi),
    "floor_divide i4": lambda: i4 // 7,
    "remainder i8": lambda: i8 % j8,
    "add c16": lambda: c16 + c16,
    "multiply c16": lambda: c16 * c16,
    "less f8": lambda: f8 < g8,
    "maximum f4": lambda: np.maximum(f4, g4, out=out4),
    "sqrt f8": lambda: np.sqrt(f8, out=out8),
    "abs f4": lambda: np.abs(f4, out=out4),
    "rint f8": lambda: np.rint(f8, out=out8),
    "exp f4": lambda: np.exp(f4, out=out4),
    "exp f8": lambda: np.exp(f8, out=out8),
    "log f8": lambda: np.log(f8, out=out8),
    "sin f4": lambda: np.sin(f4, out=out4),
    "sin f8": lambda: np.sin(f8, out=out8),
    "tanh f8": lambda: np.tanh(f8, out=out8),
    "power f8": lambda: np.power(f8, g8, out=out8),
    "hypot f8": lambda: np.hypot(f8, g8, out=out8),
    "sum f8": lambda: f8.sum(),
    "sum f4": lambda: f4.sum(),
    "sum i2": lambda: i2.sum(),
    "min u1": lambda: u1.min(),
    "cumsum f8": lambda: f8.cumsum(),
    "var f8": lambda: f8.var(),
    "argmax f4": lambda: f4.argmax(),
    "argmin i4": lambda: i4.argmin(),
    "sort f8": lambda: np.sort(f8),
    "sort i4": lambda: np.sort(i4),
    "argsort i8": lambda: np.argsort(i8),
    "stable sort i2": lambda: np.sort(i2, kind="stable"),
    "partition f4": lambda: np.partition(f4, 500),
    "unique i8": lambda: np.unique(i8),
    "unique f8": lambda: np.unique(f8),
    "searchsorted f8": lambda: np.searchsorted(np.sort(f8[:1000]), g8),
    "take f8": lambda: f8.take(index),
    "index f8": lambda: f8[index],
    "mask f8": lambda: f8[mask],
    "where f8": lambda: np.where(mask, f8, g8),
    "nonzero": lambda: mask.nonzero(),
    "astype f8 to f4": lambda: f8.astype("f4"),
    "astype i8 to f8": lambda: i8.astype("f8"),
    "copy of a transpose": lambda: f8.reshape(100, -1).T.copy(),
    "random f8": lambda: random.random(SIZE),
    "random normal": lambda: random.standard_normal(SIZE),
    "random integers": lambda: random.integers(0, 100, SIZE),
    "string add": lambda: np.strings.add(words, words),
    "string find": lambda: np.strings.find(words, "9"),
    "string upper": lambda: np.strings.upper(words),
    "fft": lambda: np.fft.rfft(f8),
    "small add": lambda: small + small,
}


def seconds(operation: Callable[[], object]) -> float:
    """Return the seconds of one call, in the fastest of the repetitions.

    A repetition has as many calls as fill SECONDS.
    """
    calls, spent = 1, 0.0
    while spent < SECONDS:
        calls, spent = calls * 2, repeat(operation, calls * 2)
    return min(repeat(operation, calls) for _ in range(REPETITIONS)) / calls


def repeat(operation: Callable[[], object], calls: int) -> float:
    """Return the seconds that this number of calls takes."""
    start = time.perf_counter()
    for _ in range(calls):
        operation()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps({name: seconds(operation) for name, operation in OPERATIONS.items()}))
