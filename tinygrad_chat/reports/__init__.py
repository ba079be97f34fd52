"""What runs leave for people.

summary.py     what a run's folder says, in one record
content.py     all that a run's report says
html.py        the report as a page
markdown.py    the report for a repository or an issue
writing.py     both, into the run's folder
comparison.py  several runs at equal tokens and at equal time
figure.py      a figure of matplotlib as PNG and SVG
ablation.py    the table, spreadsheet and plot of an ablation
"""
