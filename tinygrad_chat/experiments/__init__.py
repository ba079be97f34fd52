"""The same training many times, to learn what a setting does.

ablation.py  a grid of settings and several seeds
report.py    the table, spreadsheet and plot of an ablation
"""
