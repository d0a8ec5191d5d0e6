import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postprocess.roi_mask import Annulus, Circle, Rect, ShapeError, parse_shape, rasterise, shape_text


def drawing(mask):
    return ["".join(".#"[int(inside)] for inside in row) for row in mask]


@pytest.mark.parametrize(
    ("shape", "size_wh", "expected"),
    [
        pytest.param(
            Circle(None, None, 2.6),
            (6, 6),
            [
                "..##..",
                ".####.",
                "######",
                "######",
                ".####.",
                "..##..",
            ],
            id="circle in the centre",
        ),
        pytest.param(
            Circle(2.5, 1.5, 1),
            (6, 4),
            [
                "..#...",
                ".###..",
                "..#...",
                "......",
            ],
            id="the edge counts as inside",
        ),
        pytest.param(
            Circle(10.1, 0.5, 2.4),
            (14, 1),
            ["........#####."],
            id="decimals do not decide about the edge",
        ),
        pytest.param(
            Circle(0, 0, 2.2),
            (5, 4),
            [
                "##...",
                "##...",
                ".....",
                ".....",
            ],
            id="circle in a corner is cut off",
        ),
        pytest.param(
            Annulus(None, None, 3, 1.5),
            (6, 6),
            [
                ".####.",
                "######",
                "##..##",
                "##..##",
                "######",
                ".####.",
            ],
            id="annulus leaves its hole out",
        ),
        pytest.param(
            Annulus(2.5, 2.5, 2, 1),
            (5, 5),
            [
                "..#..",
                ".###.",
                "##.##",
                ".###.",
                "..#..",
            ],
            id="the inner edge counts as inside",
        ),
        pytest.param(
            Annulus(None, 1, 50, 0),
            (3, 2),
            ["###", "###"],
            id="annulus without a hole covers all",
        ),
        pytest.param(
            Rect(2, 2, 2, 4),
            (6, 4),
            [
                ".##...",
                ".##...",
                ".##...",
                ".##...",
            ],
            id="rectangle on pixel edges",
        ),
        pytest.param(
            Rect(2, 2, 1.9, 4),
            (6, 4),
            [
                ".##...",
                ".##...",
                ".##...",
                ".##...",
            ],
            id="rectangle over pixel centres",
        ),
        pytest.param(
            Rect(None, None, 6, 2, 45),
            (5, 5),
            [
                "##...",
                "###..",
                ".###.",
                "..###",
                "...##",
            ],
            id="a positive angle turns clockwise on the screen",
        ),
        pytest.param(
            Rect(None, None, 6, 2, -45),
            (5, 5),
            [
                "...##",
                "..###",
                ".###.",
                "###..",
                "##...",
            ],
            id="a negative angle turns back",
        ),
        pytest.param(
            Rect(None, None, 8**0.5, 8**0.5, 45),
            (5, 5),
            [
                "..#..",
                ".###.",
                "#####",
                ".###.",
                "..#..",
            ],
            id="sines do not decide about the edge",
        ),
    ],
)
def test_a_mask_covers_the_pixels_whose_centre_is_inside(shape, size_wh, expected):
    mask = rasterise(shape, size_wh)

    assert drawing(mask) == expected
    assert mask.dtype == np.bool_


@pytest.mark.parametrize(
    ("shape", "size_wh"),
    [
        (Circle(-10, 5, 3), (20, 10)),
        (Circle(5, 1e6, 3), (20, 10)),
        (Circle(5, 5, 0.1), (20, 10)),
        (Annulus(None, None, 500, 400), (20, 10)),
        (Annulus(5, 5, 0.6, 0.5), (20, 10)),
        (Rect(5, 5, 0.2, 8), (20, 10)),
        (Rect(30, 5, 8, 8, 45), (20, 10)),
    ],
)
def test_a_shape_that_covers_no_pixel_is_refused_with_the_sizes(shape, size_wh):
    with pytest.raises(ShapeError, match=r"covers no pixel of the 20×10 image") as refusal:
        rasterise(shape, size_wh)

    assert repr(shape) in str(refusal.value)


eighths = st.integers(-80, 400).map(lambda n: n / 8)
lengths = st.integers(8, 400).map(lambda n: n / 8)
sides = st.integers(1, 40)


def drawn(shape, size_wh):
    try:
        return rasterise(shape, size_wh)
    except ShapeError:
        return np.zeros(size_wh[::-1], np.bool_)


@settings(deadline=None)
@given(eighths, eighths, lengths, lengths, st.floats(-720, 720), sides, sides)
def test_a_quarter_turn_swaps_the_sides(cx, cy, w, h, angle, width, height):
    turned = drawn(Rect(cx, cy, w, h, angle + 90), (width, height))

    assert (turned == drawn(Rect(cx, cy, h, w, angle), (width, height))).all()


@settings(deadline=None)
@given(eighths, eighths, lengths, sides, sides)
def test_a_circle_is_the_same_in_a_mirror(cx, cy, r, width, height):
    mask = drawn(Circle(cx, cy, r), (width, height))

    assert (mask == drawn(Circle(width - cx, cy, r), (width, height))[:, ::-1]).all()
    assert (mask == drawn(Circle(cx, height - cy, r), (width, height))[::-1]).all()
    assert (mask == drawn(Circle(cy, cx, r), (height, width)).T).all()


@settings(deadline=None)
@given(eighths, eighths, lengths, lengths, st.integers(-360, 360), sides, sides)
def test_cutting_the_work_to_the_bounding_box_loses_no_pixel(cx, cy, w, h, angle, width, height):
    dx, dy = np.meshgrid(np.arange(width) + 0.5 - cx, np.arange(height) + 0.5 - cy)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    beyond = np.maximum(np.abs(dx * cos + dy * sin) - w / 2, np.abs(dy * cos - dx * sin) - h / 2)

    mask = drawn(Rect(cx, cy, w, h, angle), (width, height))

    assert mask[beyond < -1e-9].all()
    assert not mask[beyond > 1e-5].any()


def test_rectangles_turn_the_way_opencv_turns_them():
    drawn_by_opencv = np.zeros((140, 200), np.uint8)
    corners = cv2.boxPoints(((100, 70), (120, 40), 30))
    cv2.fillConvexPoly(drawn_by_opencv, np.rint(corners).astype(np.int32), 1)

    mask = rasterise(Rect(100, 70, 120, 40, 30), (200, 140))

    overlap = (mask & (drawn_by_opencv == 1)).sum() / (mask | (drawn_by_opencv == 1)).sum()
    assert overlap > 0.93


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ('{"kind": "circle", "cx": 10, "cy": 12.5, "r": 5}', Circle(10, 12.5, 5)),
        ('{"kind": "circle", "r": 5}', Circle(None, None, 5)),
        ('{"kind": "circle", "cx": null, "cy": 3, "r": 5e1}', Circle(None, 3, 50)),
        ('{"kind": "annulus", "r": 5, "r_inner": 2}', Annulus(None, None, 5, 2)),
        ('{"kind": "annulus", "r": 5, "r_inner": 0}', Annulus(None, None, 5, 0)),
        ('{"kind": "rect", "cx": -1, "cy": 0, "w": 5, "h": 2}', Rect(-1, 0, 5, 2, 0)),
        ('{"kind": "rect", "w": 5, "h": 2, "angle": -30}', Rect(None, None, 5, 2, -30)),
        ('{"kind": "rect", "w": 5, "h": 2, "angle": null}', Rect(None, None, 5, 2, 0)),
        ('{"kind": "rect", "x": 10, "y": -4, "w": 5, "h": 2}', Rect(12.5, -3, 5, 2)),
        ('{"kind": "rect", "x": 0, "y": 0, "cx": null, "w": 5, "h": 2, "angle": 90}', Rect(2.5, 1, 5, 2, 90)),
        ('{"kind": "circle", "x": 0, "y": 0, "cx": 7, "cy": 3, "r": 5}', Circle(7, 3, 5)),
        # One class for all kinds, as a C# serialiser writes it.
        (
            '{"kind":"circle","cx":10.0,"cy":10.0,"r":5.0,"r_inner":null,"w":null,"h":null,"angle":null}',
            Circle(10, 10, 5),
        ),
        ('{"kind":"rect","cx":10,"cy":10,"r":0,"r_inner":0,"w":4,"h":3,"angle":0}', Rect(10, 10, 4, 3)),
    ],
)
def test_a_shape_is_read_without_warnings(text, shape):
    assert parse_shape(text) == (shape, [])


def test_a_rectangle_by_its_corner_covers_the_pixels_from_there():
    shape, _ = parse_shape('{"kind": "rect", "x": 1, "y": 0, "w": 3, "h": 2}')

    assert drawing(rasterise(shape, (5, 3))) == [".###.", ".###.", "....."]


@pytest.mark.parametrize("shape", [Circle(None, 3.5, 2), Annulus(4, None, 3, 1), Rect(12.5, -3, 5, 2, 30)])
def test_the_text_of_a_shape_is_read_as_that_shape(shape):
    assert parse_shape(shape_text(shape)) == (shape, [])


def test_unknown_keys_are_ignored_and_reported():
    _, warnings = parse_shape('{"kind": "circle", "r": 5, "radius": 6, "Größe": [1]}')

    assert warnings == ['shape: unknown key "radius" ignored', 'shape: unknown key "Gr\\u00f6\\u00dfe" ignored']


CIRCLE = '{"kind": "circle", "r": %s}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("circle", 'shape is "circle", which is not JSON'),
        ("{'kind': 'circle'}", "not JSON"),
        ('{"kind": "circle", "r": 0,2}', "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[]", "shape is an array; expected a JSON object"),
        ('"circle"', r'shape is "circle"; expected a JSON object'),
        ("null", "shape is null; expected a JSON object"),
        ("NaN", "shape is NaN; expected a JSON object"),
        ("{}", r"shape\.kind is missing; expected"),
        ('{"kind": null, "r": 5}', r"shape\.kind is null; expected"),
        ('{"kind": "Circle", "r": 5}', r'shape\.kind is "Circle"; expected "circle", "annulus" or "rect"'),
        ('{"kind": ["circle"], "r": 5}', r"shape\.kind is an array; expected"),
        ('{"kind": "circle"}', r"shape\.r is missing; a circle needs a number"),
        ('{"kind": "annulus", "r": 5}', r"shape\.r_inner is missing; an? annulus needs a number"),
        ('{"kind": "rect", "w": 5}', r"shape\.h is missing; a rect needs a number"),
        ('{"kind": "rect", "w": null, "h": 5}', r"shape\.w is null; a rect needs a number"),
        (CIRCLE % "null", r"shape\.r is null"),
        (CIRCLE % "true", r"shape\.r is true; expected a number"),
        (CIRCLE % '"5"', r'shape\.r is "5"; expected a number'),
        (CIRCLE % '"0,2"', r'shape\.r is "0,2"; expected a number, with a point as decimal separator'),
        (CIRCLE % "[5]", r"shape\.r is an array; expected a number"),
        (CIRCLE % "{}", r"shape\.r is an object; expected a number"),
        (CIRCLE % ("[" * 900 + "]" * 900), r"shape\.r is an array|nested too deeply"),
        (CIRCLE % "NaN", r"shape\.r is NaN; expected a number from"),
        (CIRCLE % "-Infinity", r"shape\.r is -Infinity; expected a number from"),
        (CIRCLE % "1e999", r"shape\.r is Infinity; expected a number from"),
        (CIRCLE % "0", r"shape\.r is 0; expected a number above 0"),
        (CIRCLE % "-3.5", r"shape\.r is -3.5; expected a number above 0"),
        (CIRCLE % "1000001", r"shape\.r is 1000001\.0; expected a number from"),
        (CIRCLE % ("9" * 400), r"shape\.r is Infinity; expected a number from"),
        (CIRCLE % ("9" * 5000), r"shape\.r is Infinity; expected a number from"),
        (CIRCLE % '5, "cx": -1e7', r"shape\.cx is -10000000.0; expected a number from -1e\+06 to 1e\+06"),
        (CIRCLE % '5, "cy": false', r"shape\.cy is false; expected a number"),
        ('{"kind": "annulus", "r": 5, "r_inner": -1}', r"shape\.r_inner is -1; expected at least 0"),
        ('{"kind": "annulus", "r": 5, "r_inner": 5}', r"shape\.r_inner is 5; expected at least 0 and less than r, 5"),
        ('{"kind": "annulus", "r": -5, "r_inner": -6}', r"shape\.r is -5; expected a number above 0"),
        (
            '{"kind": "rect", "x": 0, "y": 0, "cx": 2, "cy": 2, "w": 4, "h": 4}',
            "both x or y, the top left corner, and cx",
        ),
        ('{"kind": "rect", "y": 0, "cx": 2, "w": 4, "h": 4}', "both x or y"),
        ('{"kind": "rect", "x": 0, "w": 4, "h": 4}', r"shape\.y is missing; a rect needs a number"),
        ('{"kind": "circle", "x": 0, "y": 0, "r": 4}', r"shape\.x is the corner of a rect; a circle has a centre"),
        ('{"kind": "annulus", "y": 9, "r": 4, "r_inner": 1}', r"shape\.y is the corner of a rect"),
        ('{"kind": "rect", "w": 0, "h": 5}', r"shape\.w is 0; expected a number above 0"),
        ('{"kind": "rect", "w": 5, "h": -1}', r"shape\.h is -1; expected a number above 0"),
        ('{"kind": "rect", "w": 5, "h": 1, "angle": "30"}', r'shape\.angle is "30"; expected a number'),
    ],
)
def test_anything_else_is_refused_with_the_key_and_the_value_seen(text, message):
    with pytest.raises(ShapeError, match=message) as refusal:
        parse_shape(text)

    assert len(str(refusal.value)) < 250


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
json_values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
shape_like = st.fixed_dictionaries(
    {"kind": st.sampled_from(["circle", "annulus", "rect"]) | json_values},
    optional=dict.fromkeys(
        ["x", "y", "cx", "cy", "r", "r_inner", "w", "h", "angle", "other"], st.floats(0, 500) | json_values
    ),
)


@settings(deadline=None)
@given(st.text() | json_values.map(json.dumps) | shape_like.map(json.dumps))
def test_any_text_is_a_shape_or_a_shape_error(text):
    try:
        shape, warnings = parse_shape(text)
    except ShapeError:
        return
    assert isinstance(shape, Circle | Annulus | Rect)
    assert all(isinstance(warning, str) for warning in warnings)
    assert drawn(shape, (9, 7)).shape == (7, 9)
