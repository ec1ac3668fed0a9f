"""People and their secrets: users, groups, log-in sessions, request limits, the credential vault, the legacy import.

Who somebody is and what they may do is decided here and nowhere else; `api/` only carries it over HTTP. Read
`users.py` first, then `sessions.py`; `vault.py` keeps the keys of exchanges.
"""
