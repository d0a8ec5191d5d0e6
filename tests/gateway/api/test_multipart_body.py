import pytest

from gateway.api.multipart_body import MultipartFrame
from gateway.errors import InvalidRequestError

PART = b'Content-Disposition: form-data; name="a"\r\n\r\nvalue with --x inside\r\n'
BODY = b"--x\r\n" + PART + b"--x\r\n" + PART + b"--x--\r\n"


def passed_on(body: bytes, size: int) -> bytes:
    frame = MultipartFrame(b"x")
    passed = b"".join(frame.feed(body[at : at + size]) for at in range(0, len(body), size))
    frame.finish()
    return passed


@pytest.mark.parametrize("size", range(1, 40))
@pytest.mark.parametrize(
    "preamble",
    [b"", b"\r\n", b"This is a message in MIME format.\r\n", b"--xy is no boundary\r\n--x no\r\n", b"--x\r--x\n\r\n"],
)
def test_a_preamble_is_skipped_wherever_the_body_is_split(preamble, size) -> None:
    assert passed_on(preamble + BODY, size) == BODY


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_text_after_the_closing_boundary_is_allowed(size) -> None:
    assert passed_on(BODY + b"the end\r\n", size).startswith(BODY)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("lost", range(3, len(BODY)))
def test_a_body_without_its_closing_boundary_is_refused_wherever_it_is_cut(lost, size) -> None:
    with pytest.raises(InvalidRequestError, match="boundary"):
        passed_on(BODY[:-lost], size)


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("more", [BODY, b"--x\r\n" + PART, b"the end\r\n--x\r\n"])
def test_parts_after_the_closing_boundary_are_refused(more, size) -> None:
    with pytest.raises(InvalidRequestError, match="after its closing boundary"):
        passed_on(BODY + more, size)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_delimiter_with_spaces_is_not_taken_for_a_preamble(size) -> None:
    spaced = BODY.replace(b"--x\r\n", b"--x \t\r\n")
    assert passed_on(spaced, size) == spaced


def test_the_line_break_after_the_closing_boundary_may_be_missing() -> None:
    assert passed_on(BODY[:-2], 5) == BODY[:-2]


def test_an_empty_form_is_complete() -> None:
    assert passed_on(b"--x--", 2) == b"--x--"


@pytest.mark.parametrize("body", [b"", b"no boundary", b"--y\r\n--y--\r\n", b"text --x\r\n"])
def test_a_body_without_its_boundary_is_refused(body) -> None:
    with pytest.raises(InvalidRequestError, match="does not contain its boundary '--x'"):
        passed_on(body, 4)
