"""What AIME promises under kills, faults and hostile files, tried out by commands: `python -m reliability.run`."""
