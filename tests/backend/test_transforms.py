"""Any image plane to RGB in [0, 1], and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from clsclip.errors import InvalidImageError
from clsclip.predict.transforms import resize, to_rgb, to_tensor


@given(
    hnp.arrays(
        dtype=st.sampled_from(["u1", "u2", "i2", "u4", "i4", "f4", "f8", "?"]),
        shape=st.sampled_from([(3, 4), (3, 4, 1), (3, 4, 3), (3, 4, 4)]),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_every_plane_becomes_rgb_in_unit_range(image: NDArray[Any]) -> None:
    rgb = to_rgb(image)
    assert rgb.shape == (3, 4, 3)
    assert rgb.dtype == np.float32
    assert rgb.min() >= 0.0
    assert rgb.max() <= 1.0


def test_uint8_keeps_its_range_and_wider_types_are_stretched() -> None:
    ramp = np.array([[10, 110]])
    np.testing.assert_allclose(to_rgb(ramp.astype(np.uint8))[0, :, 0], [10 / 255, 110 / 255])
    np.testing.assert_allclose(to_rgb(ramp.astype(np.uint16))[0, :, 0], [0, 1])
    np.testing.assert_allclose(to_rgb(np.array([[False, True]]))[0, :, 0], [0, 1])


def test_contrast_limits_become_black_and_white() -> None:
    image = np.array([[0, 1000, 2000, 3000]], dtype=np.uint16)
    np.testing.assert_allclose(to_rgb(image, (1000, 2000))[0, :, 1], [0, 0, 1, 1])


def test_large_integers_keep_their_differences() -> None:
    image = np.array([[2**31, 2**31 + 1, 2**31 + 2]], dtype=np.uint32)
    np.testing.assert_allclose(to_rgb(image)[0, :, 0], [0, 0.5, 1])


def test_alpha_is_left_out_and_channels_keep_their_order() -> None:
    image = np.zeros((2, 2, 4), dtype=np.uint8)
    image[..., 0], image[..., 3] = 255, 7
    np.testing.assert_array_equal(to_rgb(image)[0, 0], [1, 0, 0])


def test_constant_image_is_black() -> None:
    assert to_rgb(np.full((2, 2), 5.0)).max() == 0.0


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((0, 5)), "no pixels"),
        (np.full((2, 2), np.nan), "nan_to_num"),
        (np.array([[1.0, np.inf]]), "1 of 2 values"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.zeros((2, 2, 2, 3)), "Choose one plane"),
        (np.zeros((2, 2), dtype=complex), "complex128"),
        (np.array([["a"]]), "dtype <U1"),
    ],
)
def test_bad_images_are_refused(image: NDArray[Any], message: str) -> None:
    with pytest.raises(InvalidImageError, match=message):
        to_rgb(image)


def test_bad_contrast_limits_are_refused() -> None:
    for limits in ((2.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(InvalidImageError, match="contrast limits"):
            to_rgb(np.zeros((2, 2)), limits)


def test_tensor_has_its_own_memory() -> None:
    rgb = to_rgb(np.zeros((4, 6), dtype=np.uint8))
    tensor = to_tensor(rgb)
    tensor += 1
    assert tensor.shape == (1, 3, 4, 6)
    assert rgb.max() == 0.0


def test_shrinking_averages() -> None:
    checkers = np.indices((64, 64)).sum(0) % 2 * 255
    small = resize(to_tensor(to_rgb(checkers.astype(np.uint8))), (8, 8))
    assert float((small - 0.5).abs().max()) < 0.1
