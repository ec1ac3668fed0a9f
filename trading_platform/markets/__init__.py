"""What may be traded, when, and at what cost.

Pure functions over dated rule tables: instruments (`instruments.py`), sessions (`calendars.py`), charges (`charges.py`).
Rates and times are data files in `data/`, each with the day it came into force and its source; the code only reads them.
Nothing here talks to a venue. Read `calendars.py` first.
"""
