"""Data: tables of files, arrays in memory, the embedded digits, and the checker."""

from counterpoise.data.arrays import ArraySplit, from_arrays
from counterpoise.data.check import Report, check, show
from counterpoise.data.corruption import CORRUPTIONS, Corrupted, deviations
from counterpoise.data.dataset import DatasetSplit, from_dataset
from counterpoise.data.digits import digits, write_digits
from counterpoise.data.hugging_face import from_hf
from counterpoise.data.log import from_log
from counterpoise.data.readers import (
    READERS,
    Array,
    Audio,
    Clip,
    Flow,
    Frames,
    Image,
    Reader,
    ReadError,
    Tabular,
    Text,
    Video,
    Waveform,
)
from counterpoise.data.samples import pad
from counterpoise.data.split import Split, Splits
from counterpoise.data.table import Table
from counterpoise.data.table_split import TableSplit

__all__ = [
    "CORRUPTIONS",
    "READERS",
    "Array",
    "ArraySplit",
    "Audio",
    "Clip",
    "Corrupted",
    "DatasetSplit",
    "Flow",
    "Frames",
    "Image",
    "ReadError",
    "Reader",
    "Report",
    "Split",
    "Splits",
    "Table",
    "TableSplit",
    "Tabular",
    "Text",
    "Video",
    "Waveform",
    "check",
    "deviations",
    "digits",
    "from_arrays",
    "from_dataset",
    "from_hf",
    "from_log",
    "pad",
    "show",
    "write_digits",
]
