"""
Is still being executed when other threads want it.
"""

import time

time.sleep(0.05)
VALUE = 1
