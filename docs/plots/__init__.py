"""The plots of the documentation. `python3 -m docs.plots` runs the simulations and writes them beside the pages."""
