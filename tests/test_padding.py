"""The arithmetic of windows: sizes, padding, and what is refused."""

import pytest
import torch

from parity.spec.errors import UsageError
from parity.spec.padding import (
    check_groups,
    explicit_padding,
    output_size,
    place,
    place_pooling,
    transposed,
)


@pytest.mark.parametrize("size", [5, 8, 13])
@pytest.mark.parametrize("kernel_size", [1, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_output_size_is_that_of_pytorch(
    size, kernel_size, stride, padding, dilation
):
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    if dilation * (kernel_size - 1) + 1 > size + 2 * padding:
        with pytest.raises(UsageError, match="does not fit an image of"):
            output_size(size, kernel_size, **settings)
        return
    images, kernel = torch.ones(1, 1, size), torch.ones(1, 1, kernel_size)
    outputs = torch.nn.functional.conv1d(images, kernel, **settings)
    assert output_size(size, kernel_size, **settings) == outputs.shape[2]


def test_pairs_are_rows_and_columns():
    assert output_size((32, 64), 5) == (28, 60)
    assert output_size((9, 9), (3, 5), stride=(2, 1), padding=(1, 0)) == (5, 5)
    assert output_size(9, (3, 5)) == (7, 5)


def test_an_exact_size_says_what_would_divide():
    assert output_size(9, 3, stride=2, exact=True) == 4
    message = r"\(10 \+ 2 \* 0 - 3\) / 2 is no integer; stride 1 or stride 7 would do"
    with pytest.raises(UsageError, match=message):
        output_size(10, 3, stride=2, exact=True)
    message = r"\(10 \+ 2 \* 0 - 3\) / 3 is no integer; padding 1 or stride 1 or"
    with pytest.raises(UsageError, match=message):
        output_size(10, 3, stride=3, exact=True)
    assert output_size(10, 3, stride=3, padding=1, exact=True) == 4


def test_windows_of_a_placement_lie_in_the_padded_image():
    placed = place((12, 9), (3, 2), 2, "same", 2, ceil_mode=True)
    assert placed.padding == ((1, 2), (1, 1))
    assert placed.output_size == (6, 5)
    assert place((12, 9), 3, 2, ((1, 0), (0, 2))).output_size == (6, 5)


@pytest.mark.parametrize(
    ("given", "borders"),
    [
        ("valid", ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
    ],
)
def test_padding_is_given_in_four_ways(given, borders):
    assert explicit_padding(given, (8, 8), (3, 3)) == borders


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: output_size(0, 3), "size 0 is not an integer of 1 or more"),
        (lambda: output_size(8, 3, stride=True), "stride True is not an integer"),
        (lambda: output_size((8, 8, 8), 3), r"size \(8, 8, 8\) is not an integer or"),
        (lambda: place((8, 8), 3, 1, ((1, 2), 3)), r"padding \(\(1, 2\), 3\) is not"),
        (
            lambda: place_pooling((4, 4), 2, None, 2, 1, ceil_mode=False),
            r"padding \(2, 2\) lets a window of 2 pixels see padding only",
        ),
        (lambda: check_groups(6, 2, 4, 2), r"2 channels in 2 group\(s\) does not fit"),
        (lambda: check_groups(6, 2, 4, 3), "4 filters do not divide into 3 groups; 6"),
        (lambda: transposed((3, 3), 3, 2, 1, 2), "output_padding 2 is not less than"),
        (lambda: transposed((3, 3), 3, 2, "same", 1), "with padding 'same', whose"),
        (lambda: transposed((1, 1), 2, 1, 1, 0), "padding 1 leaves nothing of the"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()
