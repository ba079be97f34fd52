"""Reports on runs, for people.

summary.py          a run's folder, summarised in one record
content.py          the content of a run's report
samples.py          texts that its model wrote during training
charts.py           its charts
scores.py           its scores on tasks
commands.py         what can be done next with a run
html.py             the content of pages/report.html
markdown.py         the report as Markdown, for a repository or an issue
writing.py          writes both into the run's folder
comparison.py       compares runs at equal tokens and at equal time
comparison_plot.py  their curves, as a picture
"""
