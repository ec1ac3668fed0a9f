"""Room `torture`: engines, standbys, an exchange and a database are killed at random; then all books are compared.

Start reading in `run.py`. Nothing of the platform imports this room.
"""
