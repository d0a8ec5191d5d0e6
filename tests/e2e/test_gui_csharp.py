"""A C# client that was written from the table of the GUI's calls lives at the gateway, in two recipes."""

import pytest

from tests.e2e.gateway_process import PROJECT
from tests.e2e.gui_client import Gui, answered, part, spoiled
from tests.mono import Mono

RECIPES = {"Scheibe 1": 400, "Scheibe 2": 430}


@pytest.fixture(scope="module")
def said(gateway, tmp_path_factory):
    """What the client prints, by recipe and name."""
    folder = tmp_path_factory.mktemp("gui")
    for recipe, seed in RECIPES.items():
        for label, images in (("ok", [part(seed + i) for i in range(11)]), ("ng", [spoiled(seed + 20)])):
            (folder / recipe / label).mkdir(parents=True)
            for i, data in enumerate(images):
                (folder / recipe / label / f"{i:02}.png").write_bytes(data)
        (folder / recipe / "unseen.png").write_bytes(part(seed + 25))
    mono, program = Mono(), folder / "gui.exe"
    mono.compile(
        program, PROJECT / "tests" / "e2e" / "gui_program.cs", references=("System.Runtime.Serialization.dll",)
    )
    url = f"http://127.0.0.1:{gateway.port}/gui"
    printed = mono.run(program, url, *(str(folder / recipe) for recipe in RECIPES))
    lines = [line.partition("=") for line in printed.splitlines()]
    return {
        recipe: {name[len(recipe) + 1 :]: value for name, _, value in lines if name.startswith(recipe)}
        for recipe in RECIPES
    }


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_client_written_from_the_table_lives_its_whole_life(said, recipe):
    found = dict(said[recipe])
    assert float(found.pop("score")) > 0
    assert found == {
        "health": "ok cpu dinov2-vit-s/14 True True",
        "has": "True False",
        "before": f"False False {recipe}",
        "saved": "True 11 0",
        "meta of all": "True",
        "file": "True",
        "meta": "True True 01.png ok True True",
        "relabelled": "True True 10 1",
        "cleared": "1",
        "flows": "fit,calibrate",
        "good": "ok True True 0",
        "bad": "ng True 80 True",
        "region": "True",
        "every token": "True 8",
        "calibration": "10 1 99 True True",
        "state": f"True True inspection-1 inspection-1 {recipe}",
        "manifest": "True True 10",
        "evaluation": "11 0 True",
        "other scale": "409",
        "all cleared": "11",
    }


def test_the_recipes_of_the_client_stayed_apart(said, gateway):
    scores = {recipe: said[recipe]["score"] for recipe in RECIPES}
    assert len(set(scores.values())) == 2
    for recipe in RECIPES:
        gui = Gui(gateway.port, recipe)
        assert (gui.files("ok"), gui.files("ng")) == ([], [])
        assert answered(gui.ask("GET", "state", **gui.names))["recipe_id"] == recipe
