"""What pytest leaves alone when it collects this folder: peers import libraries that may not be installed."""

collect_ignore = ["peers"]
