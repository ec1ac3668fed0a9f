"""From signal to outcome: intent, risk, outbox, venue, fill, books; the lease that makes one engine the only writer.

Read `engine.py` first. A decision is on disk, with its client order id, before anything is sent for it; an answer that
does not come is asked for, never guessed.
"""
