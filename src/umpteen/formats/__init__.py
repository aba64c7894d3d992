"""Files, flags and words of the command line in, a `Job` out."""

from umpteen.formats.reading import read_job

__all__ = ["read_job"]
