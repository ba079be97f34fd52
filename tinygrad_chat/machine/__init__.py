"""What this machine is, and what it can do.

environment.py  versions, libraries, threads: what a result was made with
limits.py       products and copies at best, measured
memory.py       what this process holds, and the most that it may
"""
