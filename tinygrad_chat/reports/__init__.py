"""What runs leave for people.

summary.py          what a run's folder says, in one record
content.py          all that a run's report says
samples.py          texts that it has written while it was trained
charts.py           its charts
scores.py           what it says of tasks
commands.py         what can be done with a run next
html.py             what goes into pages/report.html
markdown.py         the report for a repository or an issue
writing.py          both, into the run's folder
comparison.py       several runs at equal tokens and at equal time
comparison_plot.py  their curves, as a picture
"""
