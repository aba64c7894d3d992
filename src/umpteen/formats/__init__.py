"""Files, flags and words of the command line in, a `Job` out."""

from umpteen.formats.reading import (
    find_program,
    read_content,
    read_executor,
    read_job,
    read_names,
    write_command,
)

__all__ = [
    "find_program",
    "read_content",
    "read_executor",
    "read_job",
    "read_names",
    "write_command",
]
