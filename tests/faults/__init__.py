"""The fault battery: kills, damage, storms and full disks, seeded and replayable.

docs/reliability.md says what it proves, and how to replay a failure or to let it run for long.
"""
