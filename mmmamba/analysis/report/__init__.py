"""The report of one tested detector: matching, curves, pictures, and the page they are shown on."""
