# SPDX-License-Identifier: Apache-2.0
"""`Samples`: images, their labels if known, and seeded splits that never overlap."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Images as they are kept on disk, before any preprocessing.

    Attributes:
        images: (N, H, W, C) uint8 pixels, or float32 pixels in [0, 1]; with `raw`, float32 of any
            shape (N, ...) in the model's own input form.
        labels: (N,) true classes, or None when unknown.
        raw: the images are already what the model takes.
        source: where they came from, for messages.
        classes: names of the classes where folders gave them, in label order.
        left_out: how many further images there were, left out to bound memory.
    """

    images: NDArray[np.generic]
    labels: Ints | None
    raw: bool
    source: str
    classes: tuple[str, ...] = ()
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pixels(self) -> Floats:
        """Pixels in [0, 1], or the raw inputs as they are; float32."""
        if self.images.dtype == np.uint8:
            return self.images.astype(np.float32) / np.float32(255)
        return self.images.astype(np.float32)

    def take(self, index: Ints) -> Samples:
        """Return the samples at `index`, in that order."""
        labels = None if self.labels is None else self.labels[index]
        return replace(self, images=self.images[index], labels=labels)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Two disjoint halves: `tool` locates, stops and chooses; `figures` is only measured on."""

    tool: Samples
    figures: Samples
    seed: int

    @classmethod
    def of(cls, samples: Samples, seed: int) -> Split:
        """Halve `samples` at random, each class as evenly as its size allows.

        Identical images fall into the same half, so that no figure is measured on a copy of an
        image that the tool has seen.
        """
        return cls(*apart(samples, seed, 2), seed)


def apart(samples: Samples, seed: int, every: int) -> tuple[Samples, Samples]:
    """Return one in `every` image, and the others, at random, each class as evenly as it allows.

    Identical images stay together.
    """
    rng = np.random.default_rng(seed)
    count = len(samples)
    order = rng.permutation(count)
    copies = [hashlib.blake2b(image.tobytes()).digest() for image in samples.images]
    labels = samples.labels if samples.labels is not None else np.zeros(count, np.int64)
    chosen: dict[bytes, bool] = {}
    taken: dict[int, int] = {}
    for position in order:
        group = copies[position]
        if group not in chosen:
            label = int(labels[position])
            at = taken.get(label, int(rng.integers(every)))
            chosen[group] = at % every == 0
            taken[label] = at + 1
    mine = np.array([chosen[group] for group in copies], bool)
    shuffled = mine[order]
    return samples.take(order[shuffled]), samples.take(order[~shuffled])


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs <x, x'>: an image that the model gets wrong and a near one that it gets right.

    Attributes:
        bad: (K, ...) x, in the model's input form, float32.
        good: (K, ...) x', likewise.
        wrong: (K,) the erroneous label, which x gets or is meant to get.
        right: (K,) the label of x', which x should get.
    """

    bad: Floats
    good: Floats
    wrong: Ints
    right: Ints

    def __len__(self) -> int:
        return len(self.bad)

    def take(self, part: slice) -> Pairs:
        """Return a part of the pairs."""
        return Pairs(self.bad[part], self.good[part], self.wrong[part], self.right[part])

    def join(self, other: Pairs) -> Pairs:
        """Return these pairs and then the others."""
        return Pairs(
            np.concatenate([self.bad, other.bad]),
            np.concatenate([self.good, other.good]),
            np.concatenate([self.wrong, other.wrong]),
            np.concatenate([self.right, other.right]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """All that location and repair may look at; nothing of it is ever reported on.

    Attributes:
        pairs: the few pairs on which weights are located.
        stop: further pairs, which say how far a repair must go.
        lessons: pairs of all these images, of the target's class as well; tuning learns from them.
        check: pairs on which edits are compared: half of them nothing else of this holds, half are
            lessons; where no images were kept aside, the lessons themselves.
        guard: (G, ...) clean inputs whose labels must not change.
        guard_labels: (G,) their true labels, or None when unknown.
    """

    pairs: Pairs
    stop: Pairs
    lessons: Pairs
    check: Pairs
    guard: Floats
    guard_labels: Ints | None

    @classmethod
    def to_locate(cls, pairs: Pairs, clean: Floats) -> Material:
        """Return pairs for all purposes, for who only locates; `clean` are unlabelled inputs."""
        return cls(pairs, pairs, pairs, pairs, clean, None)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many images each purpose gets where there are enough.

    Attributes:
        pairs: pairs to locate on (the paper's K).
        stop: further triggered images that say when a repair is done.
        guard: clean images whose labels must stay.
    """

    pairs: int = 20
    stop: int = 500
    guard: int = 1000
