"""This machine, and what it can do.

environment.py  the versions, libraries and threads that produced a result
limits.py       peak rates of matrix products and copies, measured
memory.py       the memory that this process holds, and a limit on it
"""
