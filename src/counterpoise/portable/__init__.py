"""A trained model as plain data: which classes it is made of, with which arguments, and how its samples are read."""

from counterpoise.portable.description import FORMAT, Description, Input, described, input_of, label_columns
from counterpoise.portable.objects import NotPortableError, UntrustedError, foreign, made, written

__all__ = [
    "FORMAT",
    "Description",
    "Input",
    "NotPortableError",
    "UntrustedError",
    "described",
    "foreign",
    "input_of",
    "label_columns",
    "made",
    "written",
]
