"""Lying beside ``api.py``, this file lets the tests import it from wherever they are run."""

import os

os.environ["JWT_SECRET"] = "known to everybody, used by the tests only, long enough for HS512"
os.environ.pop("TOKEN_SECONDS", None)
