"""The differences in serving between the two kinds of exported models. This module does not import torch."""

from gateway.networks.model_description import ModelDescription
from gateway.networks.student_description import StudentDescription

Description = ModelDescription | StudentDescription


def output_shape(model: Description) -> tuple[int, int]:
    """Return the shape of the output for one image: tokens and features, or rows and columns of a map."""
    if isinstance(model, StudentDescription):
        return model.input_size, model.input_size
    return model.n_tokens, model.dim


def axes(model: Description) -> dict[str, tuple[str, ...]]:
    """Return the names of the axes of both tensors, by tensor name."""
    output = ("batch", "row", "column") if isinstance(model, StudentDescription) else ("batch", "patch", "feature")
    return {model.input_name: ("batch", "row", "column", "rgb"), model.output_name: output}


def axis_labels(model: Description) -> dict[str, str]:
    """Return, by file name, a text for each tensor that describes one axis per line.

    The files are for people and for tools. Triton's own ``label_filename`` names the classes of a classification, which
    tokens and maps do not have.
    """
    side = model.input_size
    image = ("B: images", f"{side}: rows, from the top", f"{side}: columns, from the left", "3: red, green, blue")
    labels = {model.input_name: image, model.output_name: _output_labels(model)}
    return {f"labels_{name}.txt": "".join(f"{line}\n" for line in lines) for name, lines in labels.items()}


def _output_labels(model: Description) -> tuple[str, ...]:
    if isinstance(model, StudentDescription):
        names = ", ".join(layer.name for layer in model.layers)
        return (
            "B: images",
            f"{model.input_size}: rows, from the top",
            f"{model.input_size}: columns, from the left; how far the student is from the teacher in {names}",
        )
    rows, columns = model.token_hw
    return (
        "B: images",
        f"{model.n_tokens}: patches, row by row in a grid of {rows} rows and {columns} columns",
        f"{model.dim}: features, together of L2 norm 1; blocks {', '.join(map(str, model.layers))}"
        f" of {len(model.scales)} scale{'s' if len(model.scales) > 1 else ''} one after another",
    )
