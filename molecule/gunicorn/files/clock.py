"""A background process that says in the journal what it was given."""

import os
import time

print("ticking", os.environ["COLOUR"], os.environ["APP_RELEASE"])
time.sleep(86400)
