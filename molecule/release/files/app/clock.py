"""A minimal background process."""

import time

while True:
    time.sleep(1000)
