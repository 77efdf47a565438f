"""The site: settings and URLs."""
