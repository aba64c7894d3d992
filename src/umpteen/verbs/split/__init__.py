"""`split`: a batch file in chunks, and the recipe of the job that runs them. Asks no service."""

from umpteen.verbs.split.archives import Sent
from umpteen.verbs.split.request import SplitRequest
from umpteen.verbs.split.split import Split, split

__all__ = ["Sent", "Split", "SplitRequest", "split"]
