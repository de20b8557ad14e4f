"""A background process that logs its environment."""

import os
import time

print("ticking", os.environ["COLOUR"], os.environ["APP_RELEASE"])
time.sleep(86400)
