from __future__ import annotations

import numpy as np

from fettle.tasks._augment import Draws, augment

IMAGES = np.random.default_rng(0).integers(1, 256, (50, 2, 5, 7), dtype=np.uint8)


def shifted(image, down, right, most):
    """Crop at (down, right) out of the image with `most` zeros around: loops, no tricks."""
    out = np.zeros_like(image)
    for i in range(image.shape[1]):
        for j in range(image.shape[2]):
            a, b = i + down - most, j + right - most
            if 0 <= a < image.shape[1] and 0 <= b < image.shape[2]:
                out[:, i, j] = image[:, a, b]
    return out


def test_shift_and_flip_do_what_was_drawn():
    draws, at = Draws.of(1, 2, 80, 3), np.arange(20, 70)
    moved, flipped = (augment(IMAGES, kind, 3, draws, at) for kind in ("shift", "shift-flip"))
    assert moved.dtype == np.uint8
    for row, place in enumerate(at):
        wanted = shifted(IMAGES[row], *draws.shifts[place], 3)
        np.testing.assert_array_equal(moved[row], wanted)
        mirrored = wanted[..., ::-1] if draws.flips[place] else wanted
        np.testing.assert_array_equal(flipped[row], mirrored)


def test_none_changes_nothing():
    draws = Draws.of(0, 0, 50, 2)
    assert augment(IMAGES, "none", 2, draws, np.arange(50)) is IMAGES


def test_draws_are_a_permutation_and_cover_all_shifts():
    draws = Draws.of(0, 0, 500, 2)
    np.testing.assert_array_equal(np.sort(draws.order), np.arange(500))
    assert set(draws.shifts.ravel().tolist()) == {0, 1, 2, 3, 4}
    assert 200 < draws.flips.sum() < 300
