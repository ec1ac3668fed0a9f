"""What may be traded, when, and at what cost.

Pure functions over dated rule tables (`effective.py`): trading days (`calendars.py`), what an exchange does at a moment
(`sessions.py`), instruments (`instruments.py`, India's by the broker's dump in `contracts.py`), how much and at which price
(`quantities.py`, `ticks.py`, `price_bands.py`, `price_ranges.py`), limits and halts (`position_limits.py`,
`market_halts.py`), costs (`charges.py`, India's in `contract_note.py`), margins, corporate actions.
Rates and times are data files in `data/`, each with the day it came into force and its source; the code only reads them.
Nothing here talks to a venue. Read `calendars.py` first.
"""
