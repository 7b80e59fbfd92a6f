"""The worked examples of the lecture notes, in their own numbers, on both sides."""

import numpy as np
import pytest
from scipy.signal import convolve2d

from parity import ops_cases
from parity.ops_cases import assert_equal, assert_same, count, run
from parity.spec.errors import UsageError
from parity.spec.padding import output_size

print_counts = ops_cases.print_counts
ARANGE = np.arange(16.0).reshape(1, 4, 4, 1)


def both(name, *arrays, layouts=("maps", "kernel"), output="maps", **settings):
    """Returns what both sides give, as the Keras side has it."""
    arrays = [np.asarray(x) for x in arrays]
    results = run(name, arrays, layouts[: len(arrays)], settings, output=output)
    assert not count(name, results)
    assert_same(*results)
    return results[0].output


def image(rows):
    return np.asarray(rows, float)[None, ..., None]


def kernel(rows):
    return np.asarray(rows, float)[..., None, None]


# Lecture notes "Convolutional networks (1)".


def test_one_convolution_by_hand():
    given = kernel([[-0.1733, -0.4235], [0.1802, 0.4668]])
    outputs = both("conv2d", image([[0, 1], [2, 3]]), given) + 0.2037
    assert outputs.shape == (1, 1, 1, 1)
    assert_equal(outputs.item(), 1.541)


def test_a_kernel_of_quarters_is_the_mean():
    quarters = np.full((2, 2, 1, 1), 1 / 4)
    assert_equal(both("conv2d", image([[0, 1], [2, 3]]), quarters).item(), 1.5)
    outputs = both("conv2d", ARANGE, quarters)
    expected = [[2.5, 3.5, 4.5], [6.5, 7.5, 8.5], [10.5, 11.5, 12.5]]
    assert_equal(outputs, image(expected))
    pooled = both("avg_pool2d", ARANGE, kernel_size=2, stride=1)
    assert_equal(pooled, image(expected))


def test_a_larger_window_and_two_images():
    ninths = np.full((3, 3, 1, 1), 1 / 9)
    first = [[5, 6], [9, 10]]
    assert_equal(both("conv2d", ARANGE, ninths), image(first))
    two = np.arange(32.0).reshape(2, 4, 4, 1)
    expected = np.concatenate([image(first), image([[21, 22], [25, 26]])])
    assert_equal(both("conv2d", two, ninths), expected)


def test_sixteen_feature_maps():
    two, filters = np.arange(32.0).reshape(2, 4, 4, 1), ops_cases.draw(1, 3, 3, 1, 16)
    assert both("conv2d", two, filters).shape == (2, 2, 2, 16)


def test_relu_of_the_notes():
    before = [
        [-0.2818, -1.1458, 1.8352, 1.8220, 0.2402],
        [0.2336, -0.3763, -0.2860, 1.3095, 0.1935],
        [2.2810, -0.0667, -1.0980, -0.8768, -1.2860],
        [-2.0301, 2.0058, -1.4996, -2.3721, -0.2790],
        [0.5234, -2.3032, 0.3850, 0.3517, -0.7517],
    ]
    after = [
        [0.0, 0.0, 1.8352, 1.8220, 0.2402],
        [0.2336, 0.0, 0.0, 1.3095, 0.1935],
        [2.2810, 0.0, 0.0, 0.0, 0.0],
        [0.0, 2.0058, 0.0, 0.0, 0.0],
        [0.5234, 0.0, 0.3850, 0.3517, 0.0],
    ]
    assert_equal(both("relu", image(before)), image(after))


def test_max_pooling_of_the_notes():
    before = [
        [0.0766, -1.5961, 1.3616, -1.0197, 1.7961],
        [1.0320, -1.4307, 1.5249, 0.5566, 0.4670],
        [-1.2974, -0.0475, 0.0949, -0.5826, -0.2989],
        [-1.6870, 0.0900, -0.2950, 1.1790, 0.5042],
        [-1.7903, 0.8574, -1.2283, 0.6094, 0.0668],
    ]
    outputs = both("max_pool2d", image(before), kernel_size=2)
    assert_equal(outputs, image([[1.0320, 1.5249], [0.0900, 1.1790]]))


def test_zeros_against_ones_step_by_step():
    maps = both(
        "conv2d", ops_cases.draw(1, 2, 28, 28, 1), ops_cases.draw(2, 5, 5, 1, 16)
    )
    assert maps.shape == (2, 24, 24, 16)
    maps = both("relu", maps)
    maps = both("max_pool2d", maps, kernel_size=2)
    assert maps.shape == (2, 12, 12, 16)
    vectors = both("flatten", maps, output=ops_cases.Flattened(12, 12, 16))
    assert vectors.shape == (2, 2304)
    layouts = ("array", "matrix")
    logits = both("dense", vectors, ops_cases.draw(3, 2304, 1), layouts=layouts)
    assert logits.shape == both("sigmoid", logits, layouts=layouts).shape == (2, 1)


# Lecture notes "Lab 10: MNIST CNN".


def test_the_output_size_of_32_by_64():
    assert output_size((32, 64), 5, stride=1, padding=0) == (28, 60)
    images = ops_cases.draw(1, 1, 32, 64, 1)
    outputs = both("conv2d", images, ops_cases.draw(2, 5, 5, 1, 1))
    assert outputs.shape == (1, 28, 60, 1)


def test_a_convolution_is_a_perceptron_that_moves():
    images, weights = ops_cases.draw(1, 1, 5, 5, 1), ops_cases.draw(2, 3, 3, 1, 1)
    outputs = both("conv2d", images, weights)
    assert outputs.shape == (1, 3, 3, 1)
    assert_equal(both("conv2d_as_dense", images, weights), outputs)
    for row, column in np.ndindex(3, 3):
        seen = images[:, row : row + 3, column : column + 3].reshape(1, 9)
        layouts = ("array", "matrix")
        perceptron = both("dense", seen, weights.reshape(9, 1), layouts=layouts)
        assert_equal(outputs[:, row, column], perceptron)


def test_zero_padding_of_one_pixel_and_pooling_halve_the_maps():
    maps = ops_cases.draw(1, 1, 28, 28, 1)
    for filters, size in ((32, 14), (64, 7)):
        weights = ops_cases.draw(2, 3, 3, maps.shape[3], filters)
        padded = both("conv2d", both("pad", maps, padding=1), weights)
        maps = both("conv2d", maps, weights, padding=1)
        assert maps.shape[1:3] == (2 * size, 2 * size)
        assert_equal(padded, maps)
        maps = both("max_pool2d", maps, kernel_size=2, stride=2)
        assert maps.shape == (1, size, size, filters)
    vectors = both("flatten", maps, output=ops_cases.Flattened(7, 7, 64))
    assert vectors.shape == (1, 7 * 7 * 64)


# Lecture notes "Convolution Neural Networks (CNN)".


def test_sizes_of_the_formulas():
    assert output_size(5, 3) == 3
    assert output_size(5, 4, padding=2) == 6
    for size, pixels in ((3, 1), (5, 2), (7, 3)):  # p = (k - 1) / 2
        images = ops_cases.draw(1, 1, 9, 8, 1)
        weights = ops_cases.draw(2, size, size, 1, 1)
        same = both("conv2d", images, weights, padding="same")
        assert same.shape == images.shape
        assert_equal(both("conv2d", images, weights, padding=pixels), same)
    with pytest.raises(UsageError, match="stride 1 or stride 5 would do"):
        output_size(8, 3, stride=2, padding=0, exact=True)


def test_a_convolution_turns_the_kernel_and_a_correlation_does_not():
    images, weights = image(np.arange(25).reshape(5, 5)), kernel([[1, 2], [3, 4]])
    expected = image(convolve2d(images[0, ..., 0], weights[..., 0, 0], "valid"))
    assert_equal(both("convolve2d", images, weights), expected)
    correlation = both("conv2d", images, weights)
    assert not np.allclose(correlation, expected)
    assert_equal(both("conv2d", images, weights[::-1, ::-1].copy()), expected)


def test_shapes_of_the_building_blocks():
    images, weights = ops_cases.draw(1, 16, 32, 32, 3), ops_cases.draw(2, 3, 3, 3, 32)
    maps = both("relu", both("conv2d", images, weights))
    assert maps.shape == (16, 30, 30, 32)
    maps = both("max_pool2d", maps, kernel_size=(2, 2), stride=(2, 2), padding=0)
    assert maps.shape == (16, 15, 15, 32)
    layouts = ("array", "matrix")
    features, weights = ops_cases.draw(1, 16, 32), ops_cases.draw(2, 32, 10)
    assert both("dense", features, weights, layouts=layouts).shape == (16, 10)


def test_max_pooling_does_not_see_where_the_largest_stands():
    for region in ([[2, 4], [7, 8]], [[8, 4], [7, 2]]):  # 2 and 8 change places
        assert both("max_pool2d", image(region), kernel_size=2).item() == 8


def test_lenets_maps_are_16_by_4_by_4():
    maps = ops_cases.draw(1, 1, 28, 28, 1)
    for filters in (6, 16):
        maps = both("conv2d", maps, ops_cases.draw(2, 5, 5, maps.shape[3], filters))
        maps = both("max_pool2d", maps, kernel_size=(2, 2), stride=(2, 2), padding=0)
    assert maps.shape == (1, 4, 4, 16)
    assert both("flatten", maps, output=ops_cases.Flattened(4, 4, 16)).shape == (1, 256)


# Lecture notes "CNN and MNIST".


def test_a_kernel_of_2_moves_over_3_by_3_pixels_in_4_steps():
    assert (
        both("conv2d", ops_cases.draw(1, 1, 3, 3, 1), kernel(np.ones((2, 2)))).size == 4
    )
    # A pair is (rows, columns): the first one moves down.
    outputs = both("conv2d", ARANGE, kernel([[1]]), stride=(2, 1))
    assert_equal(outputs, ARANGE[:, ::2])


def test_a_dilated_kernel_of_3_covers_5_by_5_pixels():
    images, weights = image(np.arange(25).reshape(5, 5)), ops_cases.draw(2, 3, 3, 1, 1)
    outputs = both("conv2d", images, weights, dilation=2)
    assert outputs.shape == (1, 1, 1, 1)
    assert_equal(outputs.item(), np.sum(images[0, ::2, ::2] * weights[..., 0]))
    spread = np.zeros((5, 5, 1, 1))
    spread[::2, ::2] = weights
    assert_equal(both("conv2d", images, spread), outputs)


def test_max_pooling_with_padding():
    maps = ops_cases.draw(1, 1, 28, 28, 1)
    for filters, convolved, pooled in ((16, 26, 14), (32, 12, 7)):
        maps = both("conv2d", maps, ops_cases.draw(2, 3, 3, maps.shape[3], filters))
        assert maps.shape[1:] == (convolved, convolved, filters)
        maps = both("max_pool2d", maps, kernel_size=2, stride=2, padding=1)
        assert maps.shape[1:] == (pooled, pooled, filters)
    vectors = both("flatten", maps, output=ops_cases.Flattened(7, 7, 32))
    assert vectors.shape == (1, 1568)
    # The notes say that it pads with 0; negative pixels show that it does not.
    outputs = both("max_pool2d", ARANGE - 20, kernel_size=2, stride=2, padding=1)
    assert_equal(outputs, image([[-20, -18, -17], [-12, -10, -9], [-8, -6, -5]]))


def test_the_notes_keras_pooling_moves_pixel_by_pixel():
    outputs = both("max_pool2d", ARANGE, kernel_size=2, stride=1)
    assert_equal(outputs, ARANGE[:, 1:, 1:])


def test_dropout_scales_what_it_keeps():
    mask = np.array([[True, False, True, True]])
    layouts = ("array", "array")
    kept = both("dropout", np.ones((1, 4)), mask, layouts=layouts, rate=0.5)
    assert_equal(kept, [[2.0, 0.0, 2.0, 2.0]])
    kept = both("dropout", np.ones((1, 4)), mask, layouts=layouts, rate=0.3)
    assert_equal(kept, mask / 0.7)


def test_the_notes_logits_are_a_one():
    logits = np.array(
        [[-7.427, 8.698, 0.407, -4.990, -4.264, -3.783, -4.286, -3.159, -2.024, -4.415]]
    )
    layouts = ("array", "array")
    probabilities = both("softmax", logits, layouts=layouts)
    np.testing.assert_array_equal(probabilities.round(3), np.eye(10)[[1]])
    assert both("accuracy", logits, np.array([1]), layouts=layouts) == 1


# Lecture notes "What is a convolution?".


def test_sizes_and_parameters_of_filters():
    images = ops_cases.draw(1, 1, 7, 7, 1)
    assert both("conv2d", images, ops_cases.draw(2, 3, 3, 1, 1)).shape == (1, 5, 5, 1)
    maps = ops_cases.draw(1, 1, 32, 32, 3)
    for filters, parameters in ((4, 5 * 5 * 3 * 4), (10, 5 * 5 * 4 * 10)):
        weights = ops_cases.draw(2, 5, 5, maps.shape[3], filters)
        assert weights.size == parameters
        maps = both("conv2d", maps, weights)
    assert maps.shape == (1, 24, 24, 10)
