"""What the documentation site is made of, in addition to its pages; `conf.py` puts it together."""
