"""Requests of .NET's HttpClient are valid without changes."""

import pytest

from tests.e2e.dotnet_multipart import BOUNDARY, Part, body, exchange, request
from tests.e2e.synthetic_images import jpeg, png, steel
from tests.mono import Mono

SHAPE = '{"kind": "circle", "cx": 192, "cy": 192, "r": 180}'


def test_the_bytes_are_those_that_a_real_client_writes():
    """The right-hand side was recorded from Mono's System.Net.Http 4.0."""
    parts = [
        Part.text("role_id", "disc"),
        Part.file("images", "ok1.png", b"\1\2"),
        Part.file("images", "ok 1.png", b"\1\2", "image/png"),
        Part.file("images", "Prüfbild (1)'s*.png", b"\1\2"),
        Part.file("images", "検査.png", b"\1\2"),
        Part("shape", b'{"kind": "circle"}', None, "application/json; charset=utf-8"),
    ]
    recorded = f"""\
--{BOUNDARY}
Content-Type: text/plain; charset=utf-8
Content-Disposition: form-data; name=role_id

disc
--{BOUNDARY}
Content-Disposition: form-data; name=images; filename=ok1.png; filename*=utf-8''ok1.png

\1\2
--{BOUNDARY}
Content-Type: image/png
Content-Disposition: form-data; name=images; filename="ok 1.png"; filename*=utf-8''ok%201.png

\1\2
--{BOUNDARY}
Content-Disposition: form-data; name=images; filename="=?utf-8?B?UHLDvGZiaWxkICgxKSdzKi5wbmc=?="; \
filename*=utf-8''Pr%C3%BCfbild%20%281%29%27s%2A.png

\1\2
--{BOUNDARY}
Content-Disposition: form-data; name=images; filename="=?utf-8?B?5qSc5p+7LnBuZw==?="; \
filename*=utf-8''%E6%A4%9C%E6%9F%BB.png

\1\2
--{BOUNDARY}
Content-Type: application/json; charset=utf-8
Content-Disposition: form-data; name=shape

{{"kind": "circle"}}
--{BOUNDARY}--
"""
    assert body(parts) == recorded.replace("\n", "\r\n").encode()


def form(roi, *more):
    return [Part.text("role_id", "dotnet"), Part.text("roi_id", roi), Part.text("mm_per_px", "0.2"), *more]


def send(gateway, path, parts, *, expect_continue=False):
    head, content = request(path, gateway.port, parts, expect_continue=expect_continue)
    reply = exchange(gateway.port, head, content, await_continue=expect_continue)
    assert reply.status == 200, reply.content
    return reply.json()


FILES = [
    Part.file("images", "ok1.png", png(steel(0))),
    Part.file("images", "ok 2.png", png(steel(1)), "image/png"),
    Part.file("images", "Prüfbild (3)'s*.jpg", jpeg(steel(2)), "image/jpeg"),
    Part.file("images", "検査.png", png(steel(3)), "application/octet-stream"),
]
NAMES = [part.file_name for part in FILES]


@pytest.fixture(scope="module")
def fitted(gateway):
    return send(gateway, "/fit_ok", form("fitted", *FILES))


def test_a_fit_learns_every_file_by_its_own_name(gateway, fitted):
    assert fitted["n_ok_total"] == 4
    images = gateway.client.get("/rois/dotnet/fitted").json()["images"]
    assert [image["file_name"] for image in images] == NAMES


def test_a_fit_takes_a_shape(gateway):
    files = FILES[:2]
    shaped = send(gateway, "/fit_ok", form("shaped", *files, Part.text("shape", SHAPE.replace("180", "100"))))
    assert shaped["n_ok_total"] == 2
    whole = gateway.fit("whole", [(part.file_name, part.content) for part in files], role="dotnet")
    assert shaped["n_tokens_total"] < whole["n_tokens_total"], "the bank learns nothing outside the shape"
    assert shaped["ok_scores"] != whole["ok_scores"], "the scores are those inside the shape"


@pytest.mark.parametrize("file_name", ["roi.png", "roi 1.png", "検査.png"])
@pytest.mark.parametrize("content_type", [None, "image/png"])
def test_an_inspection_answers_as_for_any_client(gateway, fitted, file_name, content_type):
    image = png(steel(90))
    sent = Part.file("image", file_name, image, content_type)
    assert send(gateway, "/infer", form("fitted", sent)) == gateway.infer("fitted", image, role="dotnet")


@pytest.mark.parametrize("shape_type", ["text/plain; charset=utf-8", "application/json; charset=utf-8"])
def test_an_inspection_takes_a_shape_of_either_content_type(gateway, fitted, shape_type):
    image = png(steel(90))
    shape = Part("shape", SHAPE.encode(), None, shape_type)
    answer = send(gateway, "/infer", form("fitted", Part.file("image", "roi.png", image), shape))
    assert answer == gateway.infer("fitted", image, role="dotnet", shape=SHAPE)
    assert answer != gateway.infer("fitted", image, role="dotnet")


def test_fields_may_follow_the_file(gateway, fitted):
    image = Part.file("image", "roi.png", png(steel(90)))
    assert send(gateway, "/infer", [image, *form("fitted")]) == send(gateway, "/infer", form("fitted", image))


def test_a_client_that_expects_100_continue_gets_it(gateway, fitted):
    image = Part.file("image", "roi.png", png(steel(90)))
    answer = send(gateway, "/infer", form("fitted", image), expect_continue=True)
    assert answer["score"] > 0


def test_a_decimal_comma_is_refused_with_the_reason(gateway, fitted):
    parts = form("fitted", Part.file("image", "roi.png", png(steel(90))))
    parts[2] = Part.text("mm_per_px", "0,2")
    reply = exchange(gateway.port, *request("/infer", gateway.port, parts))
    assert reply.status == 422
    assert "'0,2'" in reply.json()["error"]["message"]
    assert "point" in reply.json()["error"]["message"]


PROGRAM = """
using System; using System.IO; using System.Net.Http; using System.Net.Http.Headers;
class Program {
  static void Main(string[] arguments) {
    var form = new MultipartFormDataContent();
    form.Add(new StringContent("dotnet"), "role_id");
    form.Add(new StringContent("fitted"), "roi_id");
    form.Add(new StringContent("0.2"), "mm_per_px");
    form.Add(new StringContent(arguments[2]), "shape");
    form.Add(new StreamContent(File.OpenRead(arguments[1])), "image", "Pr\\u00fcfbild 1.png");
    var reply = new HttpClient().PostAsync(arguments[0] + "/infer", form).Result;
    Console.Write((int)reply.StatusCode + " " + reply.Content.ReadAsStringAsync().Result);
  }
}
"""


def test_a_real_csharp_program_inspects(gateway, fitted, tmp_path):
    mono = Mono()
    (tmp_path / "client.cs").write_text(PROGRAM)
    (tmp_path / "roi.png").write_bytes(png(steel(90)))
    mono.compile(tmp_path / "client.exe", "client.cs")
    said = mono.run(tmp_path / "client.exe", f"http://127.0.0.1:{gateway.port}", "roi.png", SHAPE)
    assert said.startswith('200 {"role_id":"dotnet","roi_id":"fitted","recipe_id":"default","score":'), said
