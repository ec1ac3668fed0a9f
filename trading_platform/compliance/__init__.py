"""The audit trail and the compliance records made from it.

Read `audit.py` first: every state change of an order, a limit or a latch is an entry, written in the transaction of
the change, chained by hashes and anchored outside its group. `reports.py` writes the daily records from the
analytics database. These are records, not filings: filings are the broker's.
"""
