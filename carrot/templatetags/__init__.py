"""Tags of the templates of the monitor."""
