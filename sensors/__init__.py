"""Sensors: what makes the loop turn by itself. Few, and cheap: a tick costs about 50 ms of CPU."""
