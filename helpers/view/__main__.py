"""The process of the page: ``python -m helpers.view FD``, started by ``view.start``."""

import os
import sys

from helpers import ledger
from helpers.view import server

(own,) = [one for one in ledger.entries() if one.id == os.environ[ledger.MARK]]
server.serve(int(sys.argv[1]), own.facts["page"])
